//! Who sleeps is rung, once. (stub: signatures to keep)

/// The flag by which one thread announces that it is about to sleep.
#[derive(Debug, Default)]
pub struct Doorbell {}

impl Doorbell {
    /// Before sleeping: announce, full fence; then re-check every ring, then sleep.
    pub fn announce_sleep(&self) {
        todo!()
    }
    /// After waking, or when the re-check found something.
    pub fn awake(&self) {
        todo!()
    }
    /// After publishing: full fence; true if the owner announced sleep and nobody rang before: the caller must wake it.
    pub fn ring(&self) -> bool {
        todo!()
    }
}

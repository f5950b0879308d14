//! The fields of a frame: numbers, names, texts, payloads, and the rest. What a call or an event has of them, and in
//! which order, is not known here.
//!
//! Numbers are little-endian. A client is the 15 bytes that its id is written from.

use super::CLIENT_BYTES;
use crate::address::ClientId;
use crate::message::Kind;

/// The bytes of the size before a frame.
pub(super) const SIZE_BYTES: usize = size_of::<u32>();

/// The frame is not what its type asks for, as a sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Misfit(pub &'static str);

const SHORT: Misfit = Misfit("the frame ends before its last field");

/// Reads the fields of a frame from the first to the last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Those of a frame without its size; the first is its type.
    pub(super) fn of(frame: &'a [u8]) -> Fields<'a> {
        Fields(frame)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Misfit> {
        let (array, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*array)
    }

    pub(super) fn bytes(&mut self, size: usize) -> Result<&'a [u8], Misfit> {
        let (bytes, rest) = self.0.split_at_checked(size).ok_or(SHORT)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Misfit> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Misfit> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Misfit> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Misfit> {
        self.array().map(u64::from_le_bytes)
    }

    /// `u16` length and bytes.
    pub(super) fn name(&mut self) -> Result<&'a [u8], Misfit> {
        let size = self.u16()?;
        self.bytes(usize::from(size))
    }

    /// `u32` length and bytes.
    pub(super) fn text(&mut self) -> Result<&'a [u8], Misfit> {
        let size = self.u32()?;
        self.bytes(usize::try_from(size).map_err(|_| SHORT)?)
    }

    /// A client, or nobody if its bytes name a shard that no broker has.
    pub(super) fn client(&mut self) -> Result<Option<ClientId>, Misfit> {
        self.array().map(ClientId::from_bytes)
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Nothing is left.
    pub(super) fn end(&self) -> Result<(), Misfit> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Misfit("the frame goes on behind its last field"))
        }
    }
}

/// The byte of a kind of payload.
pub(super) fn kind_byte(kind: Kind) -> u8 {
    match kind {
        Kind::Json => 1,
        Kind::Text => 2,
        Kind::Binary => 3,
    }
}

/// Appends a frame with its size: the type, then what `write` appends.
pub(super) fn write_frame(kind: u8, out: &mut Vec<u8>, write: impl FnOnce(&mut Writer<'_>)) {
    let start = out.len();
    out.extend_from_slice(&[0; SIZE_BYTES]);
    out.push(kind);
    write(&mut Writer(out));
    let size = out.len() - start - SIZE_BYTES;
    let size = u32::try_from(size).expect("a message has at most 1 GiB, so its frame fits a u32");
    out[start..start + SIZE_BYTES].copy_from_slice(&size.to_le_bytes());
}

/// Appends the fields of a frame.
pub(super) struct Writer<'o>(&'o mut Vec<u8>);

impl Writer<'_> {
    pub(super) fn u8(&mut self, number: u8) -> &mut Self {
        self.0.push(number);
        self
    }

    pub(super) fn u16(&mut self, number: u16) -> &mut Self {
        self.rest(&number.to_le_bytes())
    }

    pub(super) fn u32(&mut self, number: u32) -> &mut Self {
        self.rest(&number.to_le_bytes())
    }

    pub(super) fn u64(&mut self, number: u64) -> &mut Self {
        self.rest(&number.to_le_bytes())
    }

    /// What a name can't hold is left out; only the code of a refusal by a handler could be so long.
    pub(super) fn name(&mut self, bytes: &[u8]) -> &mut Self {
        let size = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.u16(size).rest(&bytes[..usize::from(size)])
    }

    pub(super) fn text(&mut self, bytes: &[u8]) -> &mut Self {
        let size = u32::try_from(bytes.len()).expect("a message has at most 1 GiB, and so a text");
        self.u32(size).rest(bytes)
    }

    pub(super) fn client(&mut self, client: ClientId) -> &mut Self {
        const { assert!(CLIENT_BYTES == 15, "as many as an id is written from") };
        self.rest(&client.to_bytes())
    }

    pub(super) fn rest(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Where more can be appended by others.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_they_are_written() {
        let mut out = b"before".to_vec();
        write_frame(0x7f, &mut out, |frame| {
            frame
                .u8(1)
                .u16(0x0302)
                .u32(0x0706_0504)
                .u64(0x0f0e_0d0c_0b0a_0908);
            frame.name(b"ab").text(b"").text(b"cde").rest(b"rest");
        });
        let expected =
            b"before\x23\0\0\0\x7f\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\
            \x02\0ab\0\0\0\0\x03\0\0\0cderest";
        assert_eq!(
            out.escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
        let mut fields = Fields::of(&out[6 + SIZE_BYTES..]);
        assert_eq!(fields.u8(), Ok(0x7f));
        assert_eq!(fields.u8(), Ok(1));
        assert_eq!(fields.u16(), Ok(0x0302));
        assert_eq!(fields.u32(), Ok(0x0706_0504));
        assert_eq!(fields.u64(), Ok(0x0f0e_0d0c_0b0a_0908));
        assert_eq!(fields.name(), Ok(&b"ab"[..]));
        assert_eq!(fields.text(), Ok(&b""[..]));
        assert_eq!(fields.text(), Ok(&b"cde"[..]));
        assert!(fields.end().is_err());
        assert_eq!(fields.rest(), b"rest");
        assert_eq!(fields.end(), Ok(()));
    }

    #[test]
    fn what_is_missing_is_said() {
        let check = |bytes: &[u8], read: fn(&mut Fields<'_>) -> bool| {
            assert!(!read(&mut Fields::of(bytes)), "{bytes:?}");
        };
        check(b"", |fields| fields.u8().is_ok());
        check(b"\0", |fields| fields.u16().is_ok());
        check(b"\0\0\0", |fields| fields.u32().is_ok());
        check(&[0; 7], |fields| fields.u64().is_ok());
        check(b"\x02\0a", |fields| fields.name().is_ok());
        check(b"\xff\xff\xff\xffa", |fields| fields.text().is_ok());
        check(&[0; 14], |fields| fields.client().is_ok());
    }

    #[test]
    fn a_name_that_is_too_long_is_cut() {
        let mut out = Vec::new();
        write_frame(1, &mut out, |frame| {
            frame.name(&vec![b'x'; 70_000]).rest(b"y");
        });
        let mut fields = Fields::of(&out[SIZE_BYTES + 1..]);
        assert_eq!(fields.name().map(<[u8]>::len), Ok(65_535));
        assert_eq!(fields.rest(), b"y");
    }
}

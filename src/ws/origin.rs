//! Origin and Host checks (promises 22, 23; DESIGN 5.2). (stub)
use super::http::Request;

/// Which origins pass.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OriginRules {
    /// origins as configured, `*` = all; normalised by `OriginRules::new`
    pub allow: Vec<String>,
    /// this broker listens on loopback only
    pub loopback_only: bool,
}

/// Ok, or the sentence for the log: which `--allow-origin` would allow it / why the Host is refused.
pub fn check(_rules: &OriginRules, _request: &Request<'_>) -> Result<(), String> {
    todo!()
}

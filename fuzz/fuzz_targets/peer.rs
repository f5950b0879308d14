//! libFuzzer's way into `tests/fuzz_targets/peer.rs`.
#![no_main]

#[path = "../../tests/fuzz_targets/mod.rs"]
#[allow(dead_code, reason = "each program is about one target of all")]
mod fuzz_targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_targets::peer::run(input));

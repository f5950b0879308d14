//! The console page. (stub)
/// The page.
pub const CONSOLE: &str = "";
/// Its headers.
pub const CONSOLE_HEADERS: &[(&str, &str)] = &[];

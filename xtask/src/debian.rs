//! Servers of the distribution that the tests stand before and behind a broker: nginx and HAProxy.
//!
//! A package that is installed starts its server, on ports that are somebody's. So packages are only unpacked, with the
//! libraries that are missing, under `target/`; that takes no rights either. What the system has is used as it is.
//! `tests/common/server.rs` looks in the same places.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{self, first_line, root};

/// Packages whose server has the same name.
const SERVERS: [&str; 2] = ["nginx", "haproxy"];

/// Where distributions put servers, in or below a root folder.
const FOLDERS: [&str; 3] = ["usr/sbin", "usr/local/sbin", "usr/bin"];

/// Gets what is missing.
///
/// # Errors
/// What can't be had here, and why.
pub fn install() -> Result<(), String> {
    let missing: Vec<&str> = SERVERS
        .into_iter()
        .filter(|server| version(server).is_none())
        .collect();
    if !missing.is_empty() {
        println!("{} are not here", missing.join(" and "));
        unpack(&missing)?;
    }
    for server in SERVERS {
        let version = version(server).ok_or_else(|| format!("{server} does not start"))?;
        println!("{server}: {version}");
    }
    Ok(())
}

fn folder() -> PathBuf {
    root().join("target/debian")
}

/// What a server says of itself; none if it is not here or does not run.
fn version(server: &str) -> Option<String> {
    let of_system = FOLDERS.map(|folder| Path::new("/").join(folder).join(server));
    let of_ours = FOLDERS.map(|path| folder().join(path).join(server));
    let program = |paths: &[PathBuf]| paths.iter().find(|path| path.exists()).cloned();
    let mut command = match program(&of_system) {
        Some(program) => Command::new(program),
        None => {
            let mut command = Command::new(program(&of_ours)?);
            command.env("LD_LIBRARY_PATH", libraries(&folder()));
            command
        }
    };
    let output = command.arg("-v").output().ok()?;
    // One of them says it on standard error.
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().next().unwrap_or_default().to_owned();
    output.status.success().then_some(line)
}

/// The folders with unpacked libraries, as a path.
fn libraries(root: &Path) -> String {
    let folders = fs::read_dir(root.join("usr/lib")).into_iter().flatten();
    let folders: Vec<String> = folders
        .flatten()
        .map(|folder| folder.path().to_string_lossy().into_owned())
        .collect();
    folders.join(":")
}

fn unpack(packages: &[&str]) -> Result<(), String> {
    let names = packages.join(" and ");
    for tool in ["apt-get", "dpkg-deb"] {
        if first_line(tool, &["--version"]).is_none() {
            return Err(format!("no {names}, and no {tool} to get it with"));
        }
    }
    let archives = folder().join("archives");
    fs::create_dir_all(archives.join("partial"))
        .map_err(|error| format!("{}: {error}", archives.display()))?;
    let download = || {
        let mut apt_get = Command::new("apt-get");
        apt_get.args(["install", "-q", "-y", "--no-install-recommends"]);
        // Nothing of the system's is written, so nothing of it is locked.
        apt_get.args(["--download-only", "-o", "Debug::NoLocking=1", "-o"]);
        apt_get.arg(format!("Dir::Cache::archives={}", archives.display()));
        process::run(apt_get.args(packages)).0
    };
    // The lists at hand may be of yesterday, or none; to get others takes a right that we may not have.
    let update = || process::run(Command::new("apt-get").args(["update", "-q"])).0;
    let is_there = download() || update() && download();
    if !is_there {
        return Err(format!("apt-get could not get {names}"));
    }
    for entry in fs::read_dir(&archives).into_iter().flatten().flatten() {
        let archive = entry.path();
        if archive
            .extension()
            .is_some_and(|extension| extension == "deb")
        {
            let mut dpkg_deb = Command::new("dpkg-deb");
            dpkg_deb.arg("-x").arg(&archive).arg(folder());
            if !process::run(&mut dpkg_deb).0 {
                return Err(format!("{} can't be unpacked", archive.display()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nowhere_has_no_version() {
        assert_eq!(version("no-such-server"), None);
    }

    #[test]
    fn libraries_of_a_folder_without_any_are_none() {
        assert_eq!(libraries(Path::new("no/such/folder")), "");
    }
}

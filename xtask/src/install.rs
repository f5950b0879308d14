//! `cargo xtask install`: the library for C programs, with its header and what pkg-config wants to know.
//!
//! Cargo builds the static library; the shared one is linked from it here, since only so its symbols get versions (see
//! `ffi/Cargo.toml`). Nothing is written before everything is built.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{cargo, root, run};

/// Where it goes if nobody says otherwise.
const PREFIX: &str = "/usr/local";
/// The name under which programs find it at run time: the same as long as the ABI is.
const SONAME: &str = "libpubsub.so.0";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What the static library needs besides libgcc, which compilers link anyway.
const LIBRARIES: [&str; 4] = ["-lpthread", "-lm", "-ldl", "-lc"];

/// What is installed, and where.
#[derive(PartialEq, Eq, Debug)]
pub struct Installation {
    /// Where it will be used.
    prefix: PathBuf,
    /// Under which folder it is written, for packages.
    destdir: Option<PathBuf>,
    /// Built without optimisation, in a fraction of the time: for the tests.
    debug: bool,
}

impl Installation {
    /// Of the arguments behind `install`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Installation, String> {
        let mut installation = Installation {
            prefix: PREFIX.into(),
            destdir: None,
            debug: false,
        };
        while let Some(word) = words.next() {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word, None),
            };
            let mut folder = || {
                let value = value.or_else(|| words.next());
                value.ok_or_else(|| format!("{name} wants a folder"))
            };
            match name {
                "--prefix" => installation.prefix = folder()?.into(),
                "--destdir" => installation.destdir = Some(folder()?.into()),
                "--debug" if value.is_none() => installation.debug = true,
                _ => return Err(format!("no such option: {word}")),
            }
        }
        Ok(installation)
    }

    /// Builds and installs; false, with a word on standard error, if that failed.
    pub fn carry_out(&self) -> bool {
        match self.install() {
            Ok(()) => true,
            Err(why) => {
                eprintln!("install: {why}");
                false
            }
        }
    }

    fn install(&self) -> Result<(), String> {
        let prefix = std::path::absolute(&self.prefix).map_err(|error| error.to_string())?;
        let archive = self.build()?;
        // Of this process: several may install at a time.
        let folder = archive.with_file_name(format!("installed-{}", std::process::id()));
        make(&folder)?;
        let installed = self.put_in_place(&prefix, &archive, &folder);
        let _ = fs::remove_dir_all(&folder);
        installed
    }

    fn put_in_place(&self, prefix: &Path, archive: &Path, folder: &Path) -> Result<(), String> {
        let shared = format!("libpubsub.so.{VERSION}");
        let own_archive = folder.join("libpubsub.a");
        copy(archive, &own_archive)?;
        if !self.debug {
            // Lines of the source are of use to nobody who has no source.
            let mut strip = Command::new("strip");
            success(strip.arg("--strip-debug").arg(&own_archive))?;
        }
        self.link(&own_archive, &folder.join(&shared))?;

        let target = match &self.destdir {
            // Joining an absolute path would replace the first one.
            Some(destdir) => destdir.join(prefix.strip_prefix("/").unwrap_or(prefix)),
            None => prefix.to_owned(),
        };
        let (lib, include) = (target.join("lib"), target.join("include"));
        make(&lib.join("pkgconfig"))?;
        make(&include)?;
        for name in ["libpubsub.a", &shared] {
            put(&folder.join(name), &lib.join(name))?;
        }
        for (link, name) in [(SONAME, &*shared), ("libpubsub.so", SONAME)] {
            let link = lib.join(link);
            let _ = fs::remove_file(&link);
            symlink(name, &link).map_err(|error| format!("{}: {error}", link.display()))?;
        }
        put(&root().join("include/pubsub.h"), &include.join("pubsub.h"))?;
        let template = root().join("ffi/pubsub.pc.in");
        let template = fs::read_to_string(&template)
            .map_err(|error| format!("{}: {error}", template.display()))?;
        let about = template
            .replace("@prefix@", &prefix.display().to_string())
            .replace("@version@", VERSION);
        let path = lib.join("pkgconfig/pubsub.pc");
        fs::write(&path, about).map_err(|error| format!("{}: {error}", path.display()))?;
        for name in [&*shared, "libpubsub.a"] {
            let size = fs::metadata(lib.join(name)).map_or(0, |file| file.len());
            println!("{} ({:.1} MB)", lib.join(name).display(), size as f64 / 1e6);
        }
        println!("{}", include.join("pubsub.h").display());
        println!("{}", path.display());
        Ok(())
    }

    /// The static library.
    fn build(&self) -> Result<PathBuf, String> {
        let mut build = cargo(&["build", "--package", "pubsub-ffi", "--lib"]);
        if !self.debug {
            build.arg("--release");
        }
        success(&mut build)?;
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let target = target.unwrap_or_else(|| root().join("target"));
        let profile = if self.debug { "debug" } else { "release" };
        Ok(target.join(profile).join("libpubsub.a"))
    }

    /// The shared library: all that the functions of the header reach, and nothing else to be seen.
    fn link(&self, archive: &Path, shared: &Path) -> Result<(), String> {
        let versions = root().join("ffi/libpubsub.map");
        let mut link = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
        link.arg("-shared").arg("-o").arg(shared);
        link.arg(format!("-Wl,-soname,{SONAME}"));
        link.arg(format!("-Wl,--version-script,{}", versions.display()));
        link.arg("-Wl,--whole-archive").arg(archive);
        link.args([
            "-Wl,--no-whole-archive",
            "-Wl,--gc-sections",
            "-Wl,--no-undefined",
        ]);
        link.args(["-Wl,-z,relro", "-Wl,-z,now"]);
        if !self.debug {
            link.arg("-Wl,--strip-all");
        }
        success(link.args(LIBRARIES))
    }
}

fn success(command: &mut Command) -> Result<(), String> {
    match run(command) {
        (true, _) => Ok(()),
        (false, _) => Err(format!("{} failed", command.get_program().display())),
    }
}

fn make(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let copied = fs::copy(from, to);
    copied.map_err(|error| format!("{} to {}: {error}", from.display(), to.display()))?;
    Ok(())
}

/// Puts a file in its place at once: programs that run with the old one keep it.
fn put(from: &Path, to: &Path) -> Result<(), String> {
    let beside = to.with_extension("new");
    copy(from, &beside)?;
    fs::rename(&beside, to).map_err(|error| format!("{}: {error}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        let parse = |line: &str| Installation::parse(line.split_whitespace());
        let of = |prefix: &str, destdir: Option<&str>, debug| Installation {
            prefix: prefix.into(),
            destdir: destdir.map(PathBuf::from),
            debug,
        };
        assert_eq!(parse(""), Ok(of("/usr/local", None, false)));
        assert_eq!(parse("--prefix /opt/x"), Ok(of("/opt/x", None, false)));
        assert_eq!(
            parse("--prefix=/usr --destdir pkg --debug"),
            Ok(of("/usr", Some("pkg"), true))
        );
        for wrong in ["--prefix", "--prefx /x", "/opt", "--debug=yes"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

//! Where things are: the programs that Cargo built, and the peers that were installed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Scripts and configuration files of the peers, as they are in this commit.
const PEERS: [(&str, &str); 7] = [
    (".npmrc", include_str!("../peers/.npmrc")),
    ("package.json", include_str!("../peers/package.json")),
    (
        "package-lock.json",
        include_str!("../peers/package-lock.json"),
    ),
    ("relay.bun.js", include_str!("../peers/relay.bun.js")),
    ("relay.node.js", include_str!("../peers/relay.node.js")),
    ("redis.conf", include_str!("../peers/redis.conf")),
    ("nats.conf", include_str!("../peers/nats.conf")),
];

/// The folders of a run.
pub struct Places {
    /// The broker that is measured.
    pub broker: PathBuf,
    /// Another build of it, measured beside it; empty if there is none.
    pub before: PathBuf,
    /// The `pubsub` whose `bench` is the generator.
    pub generator: PathBuf,
    /// The floor.
    pub floor: PathBuf,
    /// `compare` in the target folder: the peers, and the logs of all that is started.
    pub cache: PathBuf,
}

impl Places {
    /// Beside this program; the broker may be another build, and a further one be measured beside it.
    ///
    /// # Errors
    /// The cache cannot be written, or a build is not where it was said to be.
    pub fn new(broker: Option<&Path>, before: Option<&Path>) -> io::Result<Places> {
        let own = std::env::current_exe()?;
        let folder = own.parent().unwrap_or(Path::new("."));
        let generator = folder.join("pubsub");
        let cache = folder.parent().unwrap_or(folder).join("compare");
        fs::create_dir_all(&cache)?;
        for (name, text) in PEERS {
            // Not while another run reads it.
            if fs::read_to_string(cache.join(name)).ok().as_deref() != Some(text) {
                fs::write(cache.join(name), text)?;
            }
        }
        Ok(Places {
            broker: broker.map_or(Ok(generator.clone()), |path| path.canonicalize())?,
            before: before.map_or(Ok(PathBuf::new()), |path| path.canonicalize())?,
            floor: folder.join("floor"),
            generator,
            cache,
        })
    }

    /// As npm laid it down for this machine.
    pub fn bun(&self) -> PathBuf {
        let package = match std::env::consts::ARCH {
            "aarch64" => "bun-linux-aarch64",
            _ => "bun-linux-x64",
        };
        let modules = self.cache.join("node_modules/@oven");
        modules.join(package).join("bin/bun")
    }

    /// Installs the peers: npm's by the lock file into the cache, the others by apt-get for the whole system.
    ///
    /// # Errors
    /// What could not be done, in a sentence.
    pub fn install(&self) -> Result<(), String> {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund"])
            .current_dir(&self.cache);
        let mut update = Command::new("apt-get");
        update.arg("update");
        let mut apt = Command::new("apt-get");
        apt.args(["install", "-y", "redis-server", "nats-server"])
            .env("DEBIAN_FRONTEND", "noninteractive");
        for command in [&mut npm, &mut update, &mut apt] {
            let shown = format!("{command:?}");
            match command.status() {
                Ok(status) if status.success() => {}
                Ok(status) => return Err(format!("{shown}: {status}")),
                Err(error) => return Err(format!("{shown}: {error}")),
            }
        }
        Ok(())
    }
}

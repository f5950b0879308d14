//! The broker as a child process: started with real arguments, known by its ready line, killed when dropped.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, kill_process, pidfd_open, prlimit,
};
use serde_json::Value;
use tempfile::NamedTempFile;

use super::{DEADLINE, admin, wait_for};

/// The log lines that are kept for failure messages.
const LOG_LINES_MAX: usize = 400;

/// A running broker.
pub struct Broker {
    child: Child,
    /// The addresses of the client listeners, in the order of the ready line.
    pub listens: Vec<String>,
    /// The address of the operators' listener.
    pub admin: Option<String>,
    /// The address of the first RESP listener.
    pub resp: Option<String>,
    /// The addresses of the listeners for peers.
    pub peers: Vec<String>,
    /// The whole ready line.
    pub ready_line: String,
    /// Behind a lock, so that threads can share the broker.
    stdout: Mutex<Receiver<String>>,
    log: Log,
    /// Removed with the broker.
    _config: Option<NamedTempFile>,
}

impl Broker {
    /// On a loopback port of its own, with these further arguments; two shards unless they say otherwise.
    pub fn start(arguments: &[&str]) -> Broker {
        Broker::launch(command(), None, &[], arguments)
    }

    /// The same with another program that has the flags and the ready line of the broker.
    pub fn start_binary(binary: &Path, arguments: &[&str]) -> Broker {
        Broker::launch(command_of(binary), None, &[], arguments)
    }

    /// The same with a configuration file. A file with `[[listener]]` brings its own listeners.
    pub fn start_with_config(config: &str, arguments: &[&str]) -> Broker {
        Broker::launch(command(), Some(config), &[], arguments)
    }

    /// The same with environment variables.
    pub fn start_with_env(env: &[(&str, &str)], arguments: &[&str]) -> Broker {
        Broker::launch(command(), None, env, arguments)
    }

    /// The same by a command that was made with [`command`] and changed.
    pub fn start_by(command: Command, arguments: &[&str]) -> Broker {
        Broker::launch_by(command, None, arguments)
    }

    /// The same with at most this many descriptors from its start.
    pub fn start_with_descriptors(count: u64, arguments: &[&str]) -> Broker {
        let broker = command();
        let mut shell = Command::new("sh");
        let script = format!("ulimit -n {count}; exec \"$0\" \"$@\"");
        shell.arg("-c").arg(script).arg(broker.get_program());
        for (name, value) in broker.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Broker::launch(shell, None, &[], arguments)
    }

    fn launch(
        mut command: Command,
        config: Option<&str>,
        env: &[(&str, &str)],
        arguments: &[&str],
    ) -> Broker {
        command.envs(env.iter().copied());
        Broker::launch_by(command, config, arguments)
    }

    fn launch_by(mut command: Command, config: Option<&str>, arguments: &[&str]) -> Broker {
        let given = |option: &str| arguments.contains(&option);
        if !given("--listen") && !config.is_some_and(brings_listeners) {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if !given("--admin") {
            command.args(["--admin", "127.0.0.1:0"]);
        }
        if !given("--shards") {
            command.args(["--shards", "2"]);
        }
        if !given("--io")
            && let Ok(io) = std::env::var("E2E_IO")
        {
            command.args(["--io", &io]);
        }
        let config = config.map(config_file);
        if let Some(file) = &config {
            command.arg("--config").arg(file.path());
        }
        command.args(arguments);
        let mut child = command.spawn().expect("the broker's binary starts");
        let log = Log::follow(child.stderr.take().expect("stderr is piped"));
        let stdout = lines(child.stdout.take().expect("stdout is piped"));
        let ready_line = match stdout.recv_timeout(DEADLINE) {
            Ok(line) => line,
            Err(error) => {
                let _ = child.kill();
                let status = child.wait();
                log.wait_for_end();
                panic!("no ready line ({error}, {status:?}); log:\n{}", log.text());
            }
        };
        let mut words = ready_line.split(' ');
        assert_eq!(
            (words.next(), words.next()),
            (Some("pubsub"), Some("ready")),
            "{ready_line}"
        );
        let (mut listens, mut peers) = (Vec::new(), Vec::new());
        let (mut admin, mut resp) = (None, None);
        for word in words {
            match word.split_once('=') {
                Some(("listen", address)) => listens.push(address.to_owned()),
                Some(("admin", address)) => admin = Some(address.to_owned()),
                Some(("resp", address)) if resp.is_none() => resp = Some(address.to_owned()),
                Some(("resp", _)) => {}
                Some(("peers", address)) => peers.push(address.to_owned()),
                _ => panic!("unexpected {word:?} in the ready line {ready_line:?}"),
            }
        }
        assert!(!listens.is_empty(), "no client listener in {ready_line:?}");
        Broker {
            child,
            listens,
            admin,
            resp,
            peers,
            ready_line,
            stdout: Mutex::new(stdout),
            log,
            _config: config,
        }
    }

    /// The address of the first client listener.
    pub fn listen(&self) -> &str {
        &self.listens[0]
    }

    /// The address of the operators' listener.
    pub fn admin(&self) -> &str {
        self.admin
            .as_deref()
            .expect("this broker was started with an admin listener")
    }

    /// The address of the RESP listener.
    pub fn resp(&self) -> &str {
        self.resp
            .as_deref()
            .expect("this broker was started with a RESP listener")
    }

    /// `/stats`.
    pub fn stats(&self) -> Value {
        self.stats_at("/stats")
    }

    /// `/stats?connections`.
    pub fn stats_of_connections(&self) -> Value {
        self.stats_at("/stats?connections")
    }

    fn stats_at(&self, path: &str) -> Value {
        let response = admin::get(self.admin(), path);
        assert_eq!(response.status, 200, "{path}: {response:?}");
        serde_json::from_str(&response.body)
            .unwrap_or_else(|error| panic!("{path} is not JSON ({error}): {}", response.body))
    }

    /// One of the sums of `/stats`.
    pub fn sum(&self, name: &str) -> u64 {
        sum_in(&self.stats(), name)
    }

    /// Waits until nothing waits in outboxes and every delivery that was due is delivered or announced, then
    /// gives `/stats`.
    pub fn stats_at_rest(&self) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let stats = self.stats();
            let sum = |name| sum_in(&stats, name);
            if sum("outbox_bytes") == 0
                && sum("deliveries_due") == sum("delivered") + sum("announced")
            {
                return stats;
            }
            assert!(
                Instant::now() < deadline,
                "not at rest within {DEADLINE:?}: due {} != delivered {} + announced {}, outbox_bytes {}",
                sum("deliveries_due"),
                sum("delivered"),
                sum("announced"),
                sum("outbox_bytes"),
            );
        }
    }

    /// The shard that a client id lives on, as `/stats?connections` says.
    pub fn shard_of(&self, id: &str) -> usize {
        self.shard_where("id", id)
    }

    /// The shard that the connection from this address lives on.
    pub fn shard_at(&self, address: &str) -> usize {
        self.shard_where("address", address)
    }

    fn shard_where(&self, field: &str, value: &str) -> usize {
        let what = format!("the connection of {field} {value} in /stats?connections");
        wait_for(&what, || {
            find_shard(&self.stats_of_connections(), field, value)
        })
    }

    /// The remote address of a client id, as `/stats?connections` says.
    pub fn address_of(&self, id: &str) -> String {
        let stats = self.stats_of_connections();
        let mut views = stats["connections"].as_array().expect("a list").iter();
        let view = views.find(|view| view["id"] == id);
        let address = view.and_then(|view| view["address"].as_str());
        address
            .unwrap_or_else(|| panic!("no address of {id} in {stats}"))
            .to_owned()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory now, in bytes.
    pub fn rss_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("VmRSS");
        let kib: u64 = line
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("VmRSS in kB");
        kib * 1024
    }

    /// Open file descriptors now.
    pub fn descriptors(&self) -> u64 {
        let path = format!("/proc/{}/fd", self.pid());
        let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        entries.count() as u64
    }

    /// From now on it may open no descriptor above this many.
    pub fn limit_descriptors(&self, count: u64) {
        let limit = Rlimit {
            current: Some(count),
            // Ours, which the broker inherited: raising it takes a privilege.
            maximum: getrlimit(Resource::Nofile).maximum,
        };
        prlimit(Some(Pid::from_child(&self.child)), Resource::Nofile, limit).expect("prlimit");
    }

    /// CPU time that it has used, all threads together.
    pub fn cpu_time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.pid());
        let stat = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        // Behind the name, which may hold anything: state is field 3, utime 14, stime 15, in ticks of 10 ms.
        let behind = stat.rsplit_once(") ").expect("a name in brackets").1;
        let ticks: u64 = behind
            .split(' ')
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<u64>().expect("ticks"))
            .sum();
        Duration::from_millis(10 * ticks)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the broker can be signalled");
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for the process to end by itself.
    pub fn wait_exit(&mut self) -> ExitStatus {
        match wait_exit(&mut self.child, DEADLINE) {
            Some(status) => status,
            None => panic!("the broker did not exit within {DEADLINE:?}"),
        }
    }

    /// Has the process ended?
    pub fn has_exited(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("the child can be asked")
            .is_some()
    }

    /// What came on standard output after the ready line; waits for its end, so only after an exit.
    pub fn more_stdout(&self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.stdout.lock().unwrap().recv_timeout(DEADLINE) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => return lines,
                Err(RecvTimeoutError::Timeout) => panic!("standard output stays open"),
            }
        }
    }

    /// Waits for a log line that contains `part` and gives it.
    pub fn log_line(&self, part: &str) -> String {
        self.log.wait_for_line(part)
    }

    /// The log so far; after an exit the whole log.
    pub fn log_text(&mut self) -> String {
        if self.has_exited() {
            self.log.wait_for_end();
        }
        self.log.text()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            self.log.wait_for_end();
            eprintln!("--- the broker's log ---\n{}", self.log.text());
        }
    }
}

fn brings_listeners(config: &str) -> bool {
    config.lines().any(|line| line.trim() == "[[listener]]")
}

/// One of the sums in a `/stats` object.
pub fn sum_in(stats: &Value, name: &str) -> u64 {
    stats[name]
        .as_u64()
        .unwrap_or_else(|| panic!("/stats has no number {name:?}: {stats}"))
}

/// The `shard` of the object whose field has this value, wherever it is.
fn find_shard(value: &Value, field: &str, wanted: &str) -> Option<usize> {
    match value {
        Value::Object(fields) => {
            if fields.get(field).and_then(Value::as_str) == Some(wanted) {
                return fields
                    .get("shard")
                    .and_then(Value::as_u64)
                    .map(|shard| shard as usize);
            }
            fields
                .values()
                .find_map(|value| find_shard(value, field, wanted))
        }
        Value::Array(values) => values
            .iter()
            .find_map(|value| find_shard(value, field, wanted)),
        _ => None,
    }
}

/// What a process that ended by itself left behind.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; none after a signal.
    pub code: Option<i32>,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

/// Runs the binary with exactly these arguments until it ends.
pub fn run(arguments: &[&str]) -> Finished {
    run_command(command().args(arguments))
}

/// Runs a command until it ends.
pub fn run_command(command: &mut Command) -> Finished {
    run_command_within(command, DEADLINE)
}

/// Runs a command until it ends, within this time.
pub fn run_command_within(command: &mut Command, within: Duration) -> Finished {
    run_command_from(command, Stdio::null(), within)
}

/// Runs a command that is fed these bytes, until it ends.
pub fn run_command_fed(command: &mut Command, input: &[u8]) -> Finished {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(input)
        .and_then(|()| file.rewind())
        .expect("a temporary file can be written");
    run_command_from(command, file.into(), DEADLINE)
}

fn run_command_from(command: &mut Command, input: Stdio, within: Duration) -> Finished {
    let mut child = command
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = text(child.stdout.take().expect("stdout is piped"));
    let stderr = text(child.stderr.take().expect("stderr is piped"));
    let status = wait_exit(&mut child, within);
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let finished = Finished {
        code: status.and_then(|status| status.code()),
        stdout: stdout.join().expect("stdout is text"),
        stderr: stderr.join().expect("stderr is text"),
    };
    assert!(
        status.is_some(),
        "{command:?} did not end within {within:?}: {finished:?}"
    );
    finished
}

/// The binary with an environment that holds none of its options. `E2E_BINARY` names another build of it.
pub fn command() -> Command {
    let binary =
        std::env::var_os("E2E_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_pubsub").into());
    command_of(Path::new(&binary))
}

fn command_of(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PUBSUB_") {
            command.env_remove(name);
        }
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A configuration file with this text.
pub fn config_file(text: &str) -> NamedTempFile {
    let mut file = tempfile::Builder::new()
        .prefix("pubsub-")
        .suffix(".toml")
        .tempfile()
        .expect("a temporary file");
    file.write_all(text.as_bytes())
        .expect("a temporary file can be written");
    file
}

/// Waits for the end of a child without taking a thread or the clock: a pidfd becomes readable.
pub fn wait_exit(child: &mut Child, within: Duration) -> Option<ExitStatus> {
    if let Some(status) = child.try_wait().expect("the child can be asked") {
        return Some(status);
    }
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("pidfd_open");
    let timeout = Timespec {
        tv_sec: within.as_secs() as i64,
        tv_nsec: i64::from(within.subsec_nanos()),
    };
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)).expect("poll");
    child.try_wait().expect("the child can be asked")
}

/// The lines of a stream, as they come.
pub fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// All of a stream, read beside whatever else happens, so that its writer never blocks.
fn text(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        stream.read_to_end(&mut text).expect("a pipe can be read");
        String::from_utf8(text).expect("output is UTF-8")
    })
}

/// The last lines of the broker's standard error.
#[derive(Clone)]
struct Log(Arc<(Mutex<LogLines>, Condvar)>);

#[derive(Default)]
struct LogLines {
    lines: VecDeque<String>,
    ended: bool,
}

impl Log {
    fn follow(stream: impl Read + Send + 'static) -> Log {
        let log = Log(Arc::default());
        let writer = log.clone();
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            // Not lines(): the log must be followed whatever bytes are in it, or the broker would block.
            while stream
                .read_until(b'\n', &mut line)
                .is_ok_and(|count| count > 0)
            {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                let mut state = writer.0.0.lock().unwrap();
                if state.lines.len() == LOG_LINES_MAX {
                    state.lines.pop_front();
                }
                state.lines.push_back(text);
                writer.0.1.notify_all();
            }
            writer.0.0.lock().unwrap().ended = true;
            writer.0.1.notify_all();
        });
        log
    }

    fn text(&self) -> String {
        let state = self.0.0.lock().unwrap();
        state.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    fn wait_for_end(&self) {
        let state = self.0.0.lock().unwrap();
        drop(
            self.0
                .1
                .wait_timeout_while(state, DEADLINE, |state| !state.ended),
        );
    }

    fn wait_for_line(&self, part: &str) -> String {
        let find = |state: &LogLines| state.lines.iter().find(|line| line.contains(part)).cloned();
        let state = self.0.0.lock().unwrap();
        let (state, _) = self
            .0
            .1
            .wait_timeout_while(state, DEADLINE, |state| {
                find(state).is_none() && !state.ended
            })
            .unwrap();
        match find(&state) {
            Some(line) => line,
            None => {
                let lines = state.lines.iter().cloned().collect::<Vec<_>>().join("\n");
                drop(state);
                panic!("no log line contains {part:?}:\n{lines}")
            }
        }
    }
}

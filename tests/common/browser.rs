//! A headless Chromium, spoken to by its own DevTools protocol (CDP) over a WebSocket: one browser, one page.
//!
//! It types and clicks as a user does, by input events at a place of the page; nothing of the page is called. What
//! is waited for is a change of the page, which the page itself announces (`MutationObserver`), so nothing polls.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

use super::DEADLINE;
use super::broker::wait_exit;

/// The names under which distributions install it; `xtask` looks for the same.
const NAMES: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// No window, no services of its own, and no sandbox, which root in a container may not have.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
];

/// How long a browser may take to start: it reads 300 MB from the disk first.
const START_TIME: Duration = Duration::from_secs(60);

/// A browser with one page.
pub struct Browser {
    child: Child,
    devtools: WebSocket<TcpStream>,
    /// CDP's name for the page.
    session: String,
    last_id: u64,
    /// Removed with the browser.
    _profile: TempDir,
}

impl Browser {
    /// Starts it; none if no Chromium is installed.
    pub fn start() -> Option<Browser> {
        let profile = tempfile::tempdir().expect("a temporary folder");
        let mut child = NAMES.iter().find_map(|name| {
            Command::new(name)
                .args(FLAGS)
                .arg(format!("--user-data-dir={}", profile.path().display()))
                .arg("about:blank")
                .env("TMPDIR", profile.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .ok()
        })?;
        let log = child.stderr.take().expect("stderr is piped");
        let url = match devtools_url(log) {
            Ok(url) => url,
            Err(log) => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("Chromium did not say where its DevTools are within {START_TIME:?}:\n{log}");
            }
        };
        let address = url
            .strip_prefix("ws://")
            .and_then(|rest| rest.split('/').next())
            .expect("ws://HOST:PORT/..");
        let stream = TcpStream::connect(address)
            .unwrap_or_else(|error| panic!("connect {address}: {error}"));
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let (devtools, _) = tungstenite::client(&url, stream).expect("DevTools speak WebSocket");
        let mut browser = Browser {
            child,
            devtools,
            session: String::new(),
            last_id: 0,
            _profile: profile,
        };
        let page = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": page["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach);
        attached["sessionId"]
            .as_str()
            .expect("a session id")
            .clone_into(&mut browser.session);
        browser.call("Page.enable", json!({}));
        Some(browser)
    }

    /// Opens a page and waits until it is loaded, its scripts included.
    pub fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", json!({"url": url}));
        assert_eq!(opened["errorText"], Value::Null, "{url}");
        while self.read()["method"] != "Page.loadEventFired" {}
    }

    /// The value of a JavaScript expression, after its promise if it is one.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let answer = self.call(
            "Runtime.evaluate",
            json!({"expression": expression, "awaitPromise": true, "returnByValue": true}),
        );
        assert_eq!(
            answer["exceptionDetails"],
            Value::Null,
            "{expression} failed"
        );
        answer["result"]["value"].clone()
    }

    /// Waits until a JavaScript expression about the page is true.
    pub fn wait_for(&mut self, expression: &str) {
        let deadline = DEADLINE.as_millis() / 2; // before the socket's own
        let happened = self.evaluate(&format!(
            "new Promise(resolve => {{
               const holds = () => Boolean({expression});
               if (holds()) return resolve(true);
               const observer = new MutationObserver(() => {{ if (holds()) end(true); }});
               const timer = setTimeout(() => end(holds()), {deadline});
               const end = value => {{ observer.disconnect(); clearTimeout(timer); resolve(value); }};
               observer.observe(document,
                 {{subtree: true, childList: true, characterData: true, attributes: true}});
             }})"
        ));
        if happened != true {
            let text = self.evaluate("document.body.innerText");
            panic!("waited {deadline} ms for {expression}; the page says:\n{text}");
        }
    }

    /// Clicks into the middle of the element.
    pub fn click(&mut self, selector: &str) {
        let middle = self.evaluate(&format!(
            "(() => {{ const at = document.querySelector({}).getBoundingClientRect();
                       return [at.x + at.width / 2, at.y + at.height / 2]; }})()",
            json!(selector)
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            self.call(
                "Input.dispatchMouseEvent",
                json!({"type": kind, "x": middle[0], "y": middle[1], "button": "left", "clickCount": 1}),
            );
        }
    }

    /// Clicks into a field and types.
    pub fn fill(&mut self, selector: &str, text: &str) {
        self.click(selector);
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Presses Enter where the focus is.
    pub fn press_enter(&mut self) {
        for kind in ["keyDown", "keyUp"] {
            self.call(
                "Input.dispatchKeyEvent",
                json!({"type": kind, "key": "Enter", "code": "Enter", "text": "\r",
                       "windowsVirtualKeyCode": 13}),
            );
        }
    }

    /// Calls a method of CDP and gives its result.
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let mut request = json!({"id": id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            request["sessionId"] = json!(self.session);
        }
        self.devtools
            .send(Message::text(request.to_string()))
            .unwrap_or_else(|error| panic!("{method}: {error}"));
        loop {
            let mut message = self.read();
            if message["id"] == id {
                assert_eq!(message["error"], Value::Null, "{method} {parameters}");
                return message["result"].take();
            }
        }
    }

    fn read(&mut self) -> Value {
        loop {
            match self.devtools.read().expect("DevTools answer in time") {
                Message::Text(text) => return serde_json::from_str(&text).expect("CDP is JSON"),
                Message::Close(_) => panic!("Chromium has closed its DevTools"),
                _ => {}
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It has children, which would go on writing into the profile while that is removed: they end with it if it
        // ends by itself.
        let close = json!({"id": 0, "method": "Browser.close"}).to_string();
        if self.devtools.send(Message::text(close)).is_ok() {
            let _ = wait_exit(&mut self.child, DEADLINE);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The URL that Chromium writes once it listens; the log instead, if it does not. The log is read to its end beside
/// everything else, so that its writer never blocks.
fn devtools_url(log: ChildStderr) -> Result<String, String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let mut text = String::new();
    loop {
        match lines.recv_timeout(START_TIME) {
            Ok(line) => match line.strip_prefix("DevTools listening on ") {
                Some(url) => return Ok(url.to_owned()),
                None => text += &format!("{line}\n"),
            },
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Err(text),
        }
    }
}

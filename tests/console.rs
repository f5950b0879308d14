//! The console, the page of the client port, in a real browser: what a user sees and types.

mod common;

use common::{Broker, Browser, Client, skip};
use serde_json::json;

/// A browser on the console of this broker, connected.
fn console(name: &str, broker: &Broker) -> Option<Browser> {
    let Some(mut browser) = Browser::start() else {
        skip(name, "there is no Chromium");
        return None;
    };
    browser.open(&format!("http://{}/", broker.listen()));
    browser.wait_for("document.querySelector('#state').className === 'open'");
    Some(browser)
}

/// A row of the log with these cells, after its time.
fn row(topic: &str, context: &str, message: &str) -> String {
    let cells = json!([topic, context, message]);
    format!(
        "Array.from(document.querySelectorAll('#log tr')).some(row => \
           JSON.stringify(Array.from(row.cells).slice(1).map(cell => cell.textContent)) === \
           JSON.stringify({cells}))"
    )
}

const ACKED: &str = "document.querySelectorAll('#filters li:not(.pending)').length === 1";

#[test]
fn it_shows_what_others_publish_and_publishes_itself() {
    let broker = Broker::start(&[]);
    let name = "it_shows_what_others_publish_and_publishes_itself";
    let Some(mut browser) = console(name, &broker) else {
        return;
    };
    let mut other = Client::connect(&broker);

    browser.fill("#filter", "news");
    browser.press_enter();
    browser.wait_for(ACKED);
    other.publish("news.uk", json!({"title": "<b>hello</b>"}));
    browser.wait_for(&row("news.uk", "news", r#"{"title":"<b>hello</b>"}"#));

    other.subscribe("chat");
    for (typed, sent, shown) in [
        (
            "{\"n\": 12345678901234567890}",
            "{\"n\": 12345678901234567890}",
            "JSON",
        ),
        ("good morning", "\"good morning\"", "text"),
    ] {
        browser.evaluate("document.querySelector('#topic').value = ''; document.querySelector('#message').value = ''");
        browser.fill("#topic", "chat.lobby");
        browser.fill("#message", typed);
        browser.wait_for(&format!(
            "document.querySelector('#hint').textContent === 'sent as {shown}'"
        ));
        browser.click("#send");
        // As it was typed: a number that is too large for JavaScript is not rounded.
        let delivery = other.delivery_text();
        assert!(
            delivery.contains(&format!(r#""message":{sent}"#)),
            "{delivery}"
        );
        browser
            .wait_for("document.querySelector('#hint').textContent === 'published to chat.lobby'");
    }
}

#[test]
fn it_unsubscribes_and_tells_refusals() {
    let broker = Broker::start(&[]);
    let Some(mut browser) = console("it_unsubscribes_and_tells_refusals", &broker) else {
        return;
    };
    let mut other = Client::connect(&broker);

    browser.fill("#filter", "news..uk");
    browser.press_enter();
    browser.wait_for(
        "document.querySelector('#log tr.error')?.textContent.includes('subscribe refused: bad_topic')",
    );
    browser.wait_for("document.querySelectorAll('#filters li').length === 0");

    browser.fill("#filter", "news");
    browser.press_enter();
    browser.wait_for(ACKED);
    browser.fill("#filter", "last");
    browser.press_enter();
    browser.wait_for("document.querySelectorAll('#filters li:not(.pending)').length === 2");
    browser.click("#filters li button");
    browser.wait_for(ACKED);
    // Its unsubscribe is on the way: the next answer that the page shows came after it.
    browser.fill("#topic", "last");
    browser.fill("#message", "1");
    browser.click("#send");
    browser.wait_for(&row("last", "last", "1"));
    other.publish("news", json!("too late"));
    other.publish("last", json!(2));
    browser.wait_for(&row("last", "last", "2"));
    let text = browser.evaluate("document.querySelector('#log').textContent");
    assert!(!text.as_str().unwrap().contains("too late"), "{text}");
}

#[test]
fn it_comes_back_with_its_subscriptions() {
    // A reader that the broker drops sees 1001 here and comes back to the next one on the same port.
    let mut first = Broker::start(&[]);
    let address = first.listen().to_owned();
    let Some(mut browser) = console("it_comes_back_with_its_subscriptions", &first) else {
        return;
    };
    browser.fill("#filter", "news");
    browser.press_enter();
    browser.wait_for(ACKED);
    first.terminate();
    assert_eq!(first.wait_exit().code(), Some(0));
    browser
        .wait_for("document.querySelector('#log tr.error')?.textContent.includes('closed: 1001')");
    let second = Broker::start(&["--listen", &address]);
    browser.wait_for("document.querySelector('#state').className === 'open'");
    browser.wait_for(ACKED);
    Client::connect(&second).publish("news", json!(1));
    browser.wait_for(&row("news", "news", "1"));
}

//! WebSocket as clients speak it: request heads, masked frames, pings and close frames.

use crate::client::{Client, ClientIndex, End, Phase, Protocol};
use crate::oracle::Kind;
use crate::stage::Stage;

/// The request for this path; hosts are told by its query whose it is.
pub fn head(path: &str, index: ClientIndex) -> Vec<u8> {
    let before = if path.contains('?') { '&' } else { '?' };
    format!(
        "GET {path}{before}c={index} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

impl Client {
    /// Appends a message, now and then in fragments with a ping between them.
    pub fn say_in_frames(
        &mut self,
        opcode: u8,
        text: &str,
        stage: &mut Stage,
        frames: &mut Vec<u8>,
    ) {
        let index = self.index;
        stage.note(|| format!("client {index} says {}", &text[..text.len().min(120)]));
        let bytes = text.as_bytes();
        if stage.rng.u8(..12) > 0 || bytes.len() < 4 {
            return self.frame(opcode, bytes, true, stage, frames);
        }
        let cut = stage.rng.usize(1..bytes.len());
        self.frame(opcode, &bytes[..cut], false, stage, frames);
        if stage.rng.bool() {
            self.frame(0x9, b"between", true, stage, frames);
            self.pings.push_back(b"between".to_vec());
        }
        self.frame(0x0, &bytes[cut..], true, stage, frames);
    }

    pub fn frame(
        &self,
        opcode: u8,
        payload: &[u8],
        fin: bool,
        stage: &mut Stage,
        out: &mut Vec<u8>,
    ) {
        out.push(u8::from(fin) << 7 | opcode);
        match payload.len() {
            size @ 0..=125 => out.push(0x80 | size as u8),
            size => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(size as u16).to_be_bytes());
            }
        }
        let mask = stage.rng.u32(..).to_be_bytes();
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    }

    pub fn say_goodbye(&self, code: u16, stage: &mut Stage, out: &mut Vec<u8>) {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(b"bye");
        self.frame(0x8, &payload, true, stage, out);
    }

    pub fn digest_frames(&mut self, stage: &mut Stage) {
        let mut inbox = std::mem::take(&mut self.inbox);
        let mut offset = 0;
        if self.phase == Phase::Connecting {
            let Some(end) = inbox.windows(4).position(|four| four == b"\r\n\r\n") else {
                self.inbox = inbox;
                return;
            };
            if !inbox.starts_with(b"HTTP/1.1 101 ") {
                let status = std::str::from_utf8(&inbox[9..12]).unwrap_or("0");
                let status = status.parse().unwrap_or(0);
                stage.network.borrow_mut().client_closes(self.connection);
                return self.over(End::Refused(status), stage);
            }
            let index = self.index;
            stage.note(|| format!("client {index} is let in"));
            self.phase = Phase::Open;
            self.was_let_in = true;
            stage.let_in.insert(index);
            offset = end + 4;
        }
        while self.phase == Phase::Open
            && let Some((opcode, start, end)) = frame_at(&inbox[offset..])
        {
            let payload = inbox[offset + start..offset + end].to_vec();
            offset += end;
            if self.got_close.is_some() {
                let text = format!("client {}: a frame behind the close frame", self.index);
                stage.oracle.violate(Kind::Ending, text);
            }
            match opcode {
                0x1 if self.protocol == Protocol::Native => self.hear_natively(&payload, stage),
                0x1 | 0x2 if matches!(self.protocol, Protocol::Clusterws(_)) => {
                    self.hear_clusterws(opcode, &payload, stage);
                }
                0x8 => self.hear_close(&payload, stage),
                0x9 => {
                    if !self.is_mute && self.closed.is_none() && !self.refuses_pings {
                        let mut pong = Vec::new();
                        self.frame(0xA, &payload, true, stage, &mut pong);
                        self.write(&pong, stage);
                    }
                }
                0xA => {
                    if self.pings.pop_front().as_ref() != Some(&payload) {
                        let text = format!("client {}: pong {payload:?}", self.index);
                        stage.oracle.violate(Kind::Answer, text);
                    }
                }
                _ => {
                    let text = format!("client {}: opcode {opcode}", self.index);
                    stage.oracle.violate(Kind::Content, text);
                }
            }
        }
        inbox.drain(..offset);
        self.inbox = inbox;
    }

    fn hear_close(&mut self, payload: &[u8], stage: &mut Stage) {
        let code = match payload {
            [high, low, ..] => u16::from_be_bytes([*high, *low]),
            _ => 0,
        };
        let index = self.index;
        stage.note(|| format!("client {index} hears close {code}"));
        self.got_close = Some(code);
        stage.emissions.closed(index, code, &mut stage.oracle);
        if self.closed.is_none() && !self.is_mute {
            let mut frames = Vec::new();
            self.frame(
                0x8,
                &payload[..payload.len().min(2)],
                true,
                stage,
                &mut frames,
            );
            self.write(&frames, stage);
        }
        // It says no more and waits for the end.
        self.closed.get_or_insert(code);
        stage.network.borrow_mut().client_finishes(self.connection);
    }
}

/// The first whole frame of the broker's: opcode, and where its payload begins and ends.
fn frame_at(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let &[first, second, ..] = bytes else {
        return None;
    };
    assert!(first & 0xF0 == 0x80 && second & 0x80 == 0, "a broken frame");
    let (start, size) = match second {
        126 => (
            4,
            u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()).into(),
        ),
        127 => (
            10,
            u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()) as usize,
        ),
        size => (2, size.into()),
    };
    (bytes.len() >= start + size).then_some((first & 0x0F, start, start + size))
}

//! What a RESP client says about itself, and asks about itself and others.

use crate::address::SessionId;
use crate::protocol::resp::reply;
use crate::protocol::resp::request::{ClientFilter, ClientRequest, Names, ReplyMode};

use super::super::Shard;
use super::super::session::Session;
use super::RespSession;
use super::execute::Wait;

impl RespSession {
    /// Does a `CLIENT LIST` of these have it?
    pub(super) fn is_one_of(&self, filter: &ClientFilter) -> bool {
        match filter {
            ClientFilter::All => true,
            ClientFilter::Normal => !self.counts.is_any(),
            ClientFilter::PubSub => self.counts.is_any(),
            ClientFilter::None => false,
            ClientFilter::Ids(ids) => ids.contains(&self.client),
        }
    }
}

impl Shard {
    /// `CLIENT` and its subcommands.
    pub(super) fn client(
        &mut self,
        id: SessionId,
        request: &ClientRequest<'_>,
    ) -> Result<(), Wait> {
        let Some(session) = self.sessions.find(id) else {
            return Ok(());
        };
        let Some(resp) = &mut session.resp else {
            return Ok(());
        };
        match request {
            ClientRequest::Id => {
                let client = resp.client as i64;
                self.answer_resp(id, |_, out| reply::write_integer(client, out));
                return Ok(());
            }
            ClientRequest::GetName => {
                let name = resp.name.clone();
                self.answer_resp(id, |version, out| match &name[..] {
                    b"" => reply::write_null(version, out),
                    name => reply::write_bulk(name, out),
                });
                return Ok(());
            }
            ClientRequest::Info => {
                let line = match self.sessions.find(id) {
                    Some(session) => line_of(session, self.now.ms),
                    None => return Ok(()),
                };
                self.answer_resp(id, |version, out| {
                    reply::write_verbatim(version, &line, out)
                });
                return Ok(());
            }
            ClientRequest::List(filter) => return self.ask_clients(id, filter),
            ClientRequest::SetName(name) => resp.name = (*name).into(),
            ClientRequest::SetLibraryName(name) => resp.library = (*name).into(),
            ClientRequest::SetLibraryVersion(version) => resp.library_version = (*version).into(),
            ClientRequest::NoEvict | ClientRequest::NoTouch | ClientRequest::TrackingOff => {}
            ClientRequest::Reply(mode) => {
                match (*mode, resp.replies) {
                    (ReplyMode::Skip, ReplyMode::Off) => {}
                    (mode, _) => resp.replies = mode,
                }
                if *mode != ReplyMode::On {
                    return Ok(());
                }
            }
        }
        self.answer_resp(id, |_, out| reply::write_simple(b"OK", out));
        Ok(())
    }

    /// `INFO`.
    pub(super) fn info(&mut self, id: SessionId, sections: Names<'_>) {
        let _ = sections;
        self.answer_resp(id, |version, out| {
            reply::write_verbatim(version, b"loading:0\r\n", out)
        });
    }

    /// A line of `CLIENT LIST`.
    pub(super) fn client_line(&self, session: &Session, _resp: &RespSession) -> Vec<u8> {
        line_of(session, self.now.ms)
    }
}

fn line_of(session: &Session, _now_ms: u64) -> Vec<u8> {
    format!("addr={}", session.address).into_bytes()
}

//! What a RESP client says about itself, and asks about itself and others.

use bytes::Bytes;

use crate::address::SessionId;
use crate::protocol::resp::info::{ClientFacts, ServerFacts, write_client, write_info};
use crate::protocol::resp::reply;
use crate::protocol::resp::request::{ClientFilter, ClientRequest, ReplyMode};

use super::super::Shard;
use super::super::session::Session;
use super::super::tally::Facts;
use super::execute::Wait;
use super::{RespSession, version_of};

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
                let mut line = Vec::new();
                if let Some(session) = self.sessions.peek(id)
                    && let Some(resp) = &session.resp
                {
                    self.write_client(session, resp, &mut line);
                }
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

    /// The text of `INFO`, in the words of Redis.
    pub(super) fn info(&self, listener: usize, facts: &Facts, sections: &[Bytes]) -> Vec<u8> {
        let stats = &facts.stats;
        let run_id = format!("{:040x}", self.settings.broker);
        let (channels, shard_channels) = self.channels();
        let facts = ServerFacts {
            process_id: self.settings.process_id,
            run_id: &run_id,
            tcp_port: self.settings.listeners[listener].port,
            // The clock begins with the broker.
            uptime_s: self.now.ms / 1000,
            connections: stats.connections,
            connections_max: self.settings.limits.connections_max as u64,
            connections_total: stats.accepted,
            rejected_total: stats.refused,
            used_memory_bytes: None,
            commands_total: stats.commands,
            channels: channels as u64,
            patterns: self.patterns() as u64,
            shard_channels: shard_channels as u64,
            shards: self.settings.shards as u64,
            subscriptions: stats.subscriptions,
            publishes: stats.publishes,
            deliveries_due: stats.deliveries_due,
            delivered: stats.delivered,
            announced: stats.announced,
            closed_slow: stats.closed_slow,
            outbox_bytes: stats.outbox_bytes,
        };
        let sections: Vec<&[u8]> = sections.iter().map(|name| &name[..]).collect();
        let mut text = Vec::new();
        write_info(&facts, &sections, &mut text);
        text
    }

    /// A line of `CLIENT LIST`.
    pub(super) fn write_client(&self, session: &Session, resp: &RespSession, out: &mut Vec<u8>) {
        let age_s = |since_ms: u64| self.now.ms.saturating_sub(since_ms) / 1000;
        let facts = ClientFacts {
            id: resp.client,
            address: &session.address.to_string(),
            local_address: &self.settings.listeners[usize::from(session.listener)].address,
            name: &resp.name,
            age_s: age_s(resp.since_ms),
            idle_s: age_s(session.last_input_ms),
            channels: resp.counts.channels,
            patterns: resp.counts.patterns,
            shard_channels: resp.counts.shards,
            buffered_bytes: resp.reader.buffered_bytes(),
            outbox_bytes: session.outbox.charged(),
            command: resp.command,
            version: version_of(session),
            library_name: &resp.library,
            library_version: &resp.library_version,
        };
        write_client(&facts, out);
    }
}

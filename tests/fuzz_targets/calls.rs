//! A command of a peer, as the call that it came from: the way back from what was decoded.

use pubsub::protocol::Command;
use pubsub::protocol::peer::call::Call;
use pubsub::protocol::peer::{PeerCommand, tag_ticket, write_call};

/// Appends the frame that a peer asks for this command by.
pub fn write_command(command: &Command, out: &mut Vec<u8>) {
    let call = match command {
        Command::Subscribe { filter, tag } => Call::Subscribe {
            ticket: tag_ticket(tag.as_ref()),
            filter,
        },
        Command::Unsubscribe { filter, tag } => Call::Unsubscribe {
            ticket: tag_ticket(tag.as_ref()),
            filter,
        },
        Command::Publish { message, tag } => Call::Publish {
            ticket: tag_ticket(tag.as_ref()),
            topic: &message.targets.topics[0],
            payload: &message.payload,
            echo: !message.flags.not_to_origin,
        },
        Command::Emit {
            to,
            event,
            data,
            volatile,
            tag,
        } => Call::Emit {
            ticket: tag_ticket(tag.as_ref()),
            to,
            event,
            payload: data,
            volatile: *volatile,
        },
        Command::Request {
            to,
            event,
            data,
            tag,
            timeout_ms,
        } => Call::Request {
            ticket: tag_ticket(Some(tag)),
            to,
            event,
            payload: data,
            timeout_ms: timeout_ms.map_or(0, |ms| u32::try_from(ms).expect("it came in a u32")),
        },
        Command::Reply { number, outcome } => Call::Reply {
            number: *number,
            outcome,
        },
        Command::Handle { event, tag } => Call::Handle {
            ticket: tag_ticket(tag.as_ref()),
            event,
        },
        Command::Unhandle { event, tag } => Call::Unhandle {
            ticket: tag_ticket(tag.as_ref()),
            event,
        },
        Command::Whoami { .. } | Command::Ping { .. } => panic!("no peer says {command:?}"),
        Command::Peer(command) => own(command),
    };
    let start = out.len();
    write_call(&call, out);
    if let Command::Peer(command) = command
        && let PeerCommand::Hello { version, .. } = **command
    {
        // Whoever writes a call is of today's version.
        out[start + 5..start + 7].copy_from_slice(&version.to_le_bytes());
    }
}

fn own(command: &PeerCommand) -> Call<'_> {
    match command {
        PeerCommand::Hello { name, key, .. } => Call::Hello {
            name,
            key: key.as_ref().map_or(b"", |key| key.reveal().as_bytes()),
        },
        PeerCommand::EmitMany {
            to,
            event,
            data,
            volatile,
            tag,
        } => Call::EmitMany {
            ticket: tag_ticket(tag.as_ref()),
            to,
            event,
            payload: data,
            volatile: *volatile,
        },
        PeerCommand::Watch { mask, tag } => Call::Watch {
            ticket: tag_ticket(tag.as_ref()),
            mask: *mask,
        },
        PeerCommand::Admit { client, verdict } => Call::Admit {
            client: *client,
            verdict,
        },
        PeerCommand::Join { client, room, tag } => Call::Join {
            ticket: tag_ticket(tag.as_ref()),
            client: *client,
            room,
        },
        PeerCommand::Leave { client, room, tag } => Call::Leave {
            ticket: tag_ticket(tag.as_ref()),
            client: *client,
            room,
        },
        PeerCommand::Disconnect {
            client,
            code,
            reason,
            tag,
        } => Call::Disconnect {
            ticket: tag_ticket(tag.as_ref()),
            client: *client,
            code: *code,
            reason,
        },
        PeerCommand::Accept { token, id, tag } => Call::Accept {
            ticket: tag_ticket(tag.as_ref()),
            token,
            id: id.as_deref().unwrap_or_default(),
        },
        PeerCommand::Reject { token, tag } => Call::Reject {
            ticket: tag_ticket(tag.as_ref()),
            token,
        },
        PeerCommand::AdmitPeer {
            name,
            admitted,
            tag,
        } => Call::AdmitPeer {
            ticket: tag_ticket(tag.as_ref()),
            name,
            admitted: *admitted,
        },
        PeerCommand::CutPeer { name, tag } => Call::CutPeer {
            ticket: tag_ticket(tag.as_ref()),
            name,
        },
        PeerCommand::Alive => Call::Alive,
        PeerCommand::Bye => Call::Bye,
    }
}

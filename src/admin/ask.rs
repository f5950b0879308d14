//! Asking shards from async code: the shard answers by calling a closure on its own thread, which hands the value
//! to a oneshot. A shard that cannot be reached, or is silent for [`ANSWER_TIME`], is named, never waited for.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::net::control::{Control, ControlSender, Reply};

/// How long a shard may take to answer: far above any healthy turn, below the patience of a probe.
pub const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Why there is no answer from a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoAnswer {
    /// Its channel is full or it has ended; it never got the question.
    Unreachable {
        /// Which one.
        shard: usize,
    },
    /// It took the question and gave no answer, in time or at all; it may have acted, or still act.
    Silent {
        /// Which one.
        shard: usize,
    },
}

/// Asks one shard.
///
/// # Errors
/// [`NoAnswer`] after [`ANSWER_TIME`] at most.
pub async fn ask<T: Send + 'static>(
    shards: &[ControlSender],
    shard: usize,
    question: impl FnOnce(Reply<T>) -> Control,
) -> Result<T, NoAnswer> {
    let answer = send(&shards[shard], question);
    wait(shard, answer, Instant::now() + ANSWER_TIME).await
}

/// Asks every shard at once; the answers are in the order of the shards.
///
/// # Errors
/// The first shard without an answer, after [`ANSWER_TIME`] at most for all of them together.
pub async fn ask_all<T: Send + 'static>(
    shards: &[ControlSender],
    question: impl Fn(Reply<T>) -> Control,
) -> Result<Vec<T>, NoAnswer> {
    let deadline = Instant::now() + ANSWER_TIME;
    let asked: Vec<_> = shards.iter().map(|shard| send(shard, &question)).collect();
    let mut answers = Vec::with_capacity(asked.len());
    for (shard, answer) in asked.into_iter().enumerate() {
        answers.push(wait(shard, answer, deadline).await?);
    }
    Ok(answers)
}

fn send<T: Send + 'static>(
    shard: &ControlSender,
    question: impl FnOnce(Reply<T>) -> Control,
) -> Option<oneshot::Receiver<T>> {
    let (answer, receiver) = oneshot::channel();
    // Whoever asked may have given up; then nobody misses the answer.
    let reply = Box::new(move |value| drop(answer.send(value)));
    shard.send(question(reply)).ok().map(|()| receiver)
}

async fn wait<T>(
    shard: usize,
    answer: Option<oneshot::Receiver<T>>,
    deadline: Instant,
) -> Result<T, NoAnswer> {
    let answer = answer.ok_or(NoAnswer::Unreachable { shard })?;
    match timeout_at(deadline, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(_)) | Err(_) => Err(NoAnswer::Silent { shard }),
    }
}

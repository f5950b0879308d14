//! Interest against counts and what each peer believes. The input: one byte for the peers, then steps of a byte and
//! an argument.

use std::collections::HashMap;

use pubsub::address::{ShardId, ShardSet};
use pubsub::topic::interest::Interest;

use super::input::Input;

const KEYS: usize = 6;

/// What each peer makes of the edges that it was told.
type Beliefs = Vec<(ShardId, HashMap<usize, bool>)>;

pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let peers: &[u8] = [&[][..], &[0], &[1, 2, 5], &[0, 63, 64, 127]][input.below(4)];
    let set: ShardSet = peers.iter().map(|&peer| ShardId(peer)).collect();
    let mut interest: Interest<usize> = Interest::new(set);
    let mut counts = [0_usize; KEYS];
    let mut beliefs: Beliefs = set.iter().map(|peer| (peer, HashMap::new())).collect();
    while !input.is_empty() {
        let step = input.below(8);
        let argument = input.byte();
        let key = usize::from(argument) % KEYS;
        match step {
            0..3 => {
                counts[key] += 1;
                assert_eq!(interest.add(&key), counts[key] == 1);
            }
            3..6 if counts[key] > 0 => {
                counts[key] -= 1;
                assert_eq!(interest.remove(&key), counts[key] == 0);
            }
            _ if !beliefs.is_empty() => {
                let index = usize::from(argument) % beliefs.len();
                let (peer, belief) = &mut beliefs[index];
                tell(&mut interest, *peer, belief, &counts);
            }
            _ => {}
        }
        check(&interest, &counts, &beliefs);
    }
    for (peer, belief) in &mut beliefs {
        while tell(&mut interest, *peer, belief, &counts) {}
        for (key, &count) in counts.iter().enumerate() {
            assert_eq!(believes(belief, key), count > 0);
        }
    }
    for (key, count) in counts.iter_mut().enumerate() {
        while *count > 0 {
            *count -= 1;
            interest.remove(&key);
        }
    }
    for (peer, belief) in &mut beliefs {
        while tell(&mut interest, *peer, belief, &counts) {}
    }
    assert_eq!(interest.entry_count(), 0, "what nobody wants is forgotten");
}

fn believes(belief: &HashMap<usize, bool>, key: usize) -> bool {
    belief.get(&key).copied().unwrap_or(false)
}

/// Tells one edge, if there is one: there is, exactly if the peer is wrong about something.
fn tell(
    interest: &mut Interest<usize>,
    peer: ShardId,
    belief: &mut HashMap<usize, bool>,
    counts: &[usize; KEYS],
) -> bool {
    let is_wrong = (0..KEYS).any(|key| believes(belief, key) != (counts[key] > 0));
    let edge = interest.next_edge(peer);
    assert_eq!(edge.is_some(), is_wrong);
    if let Some(edge) = &edge {
        assert_eq!(edge.up, counts[edge.key] > 0, "what is told is so now");
        assert_ne!(
            believes(belief, edge.key),
            edge.up,
            "ups and downs alternate"
        );
        belief.insert(edge.key, edge.up);
        interest.told(peer);
    }
    edge.is_some()
}

fn check(interest: &Interest<usize>, counts: &[usize; KEYS], beliefs: &Beliefs) {
    let mut lives = 0;
    for (key, &count) in counts.iter().enumerate() {
        assert_eq!(interest.count(&key), count);
        let mut told = beliefs.iter().map(|(_, belief)| believes(belief, key));
        let is_announced = count > 0 && told.clone().all(|believes| believes);
        assert_eq!(interest.is_announced(&key), is_announced);
        lives += usize::from(count > 0 || told.any(|believes| believes));
    }
    let mut wanted: Vec<usize> = interest.iter().copied().collect();
    wanted.sort_unstable();
    let expected: Vec<usize> = (0..KEYS).filter(|key| counts[*key] > 0).collect();
    assert_eq!(wanted, expected);
    assert_eq!(interest.entry_count(), lives);
}

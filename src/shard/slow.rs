//! What happens to a reader that is slower than its publishers, by topic prefix.

use bytes::Bytes;

use crate::topic::Topic;

/// The slow-consumer policy of a topic.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum SlowPolicy {
    /// Close the connection with 4008.
    #[default]
    Close,
    /// Skip the oldest waiting messages of such topics, and tell how many by `gap`.
    DropOldest,
    /// Keep only the newest waiting message of each such topic, and tell how many were skipped by `gap`.
    Conflate,
}

/// A policy for a topic and everything below it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlowRule {
    /// A dotted topic; empty or `*` for all topics.
    pub prefix: Bytes,
    /// What happens there.
    pub policy: SlowPolicy,
}

/// All rules of a broker; the longest prefix that fits decides.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SlowRules {
    /// Longest prefix first.
    rules: Vec<SlowRule>,
}

impl SlowRules {
    /// Of two rules with one prefix the later one counts.
    pub fn new(mut rules: Vec<SlowRule>) -> SlowRules {
        for rule in &mut rules {
            if rule.prefix == "*" {
                rule.prefix = Bytes::new();
            }
        }
        rules.reverse();
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.prefix.len()));
        SlowRules { rules }
    }

    /// The policy for a topic.
    pub fn policy(&self, topic: &Topic) -> SlowPolicy {
        let name = topic.as_bytes();
        self.rules
            .iter()
            .find(|rule| {
                let prefix = &rule.prefix;
                prefix.is_empty()
                    || name.starts_with(prefix)
                        && matches!(name.get(prefix.len()), None | Some(b'.'))
            })
            .map_or(SlowPolicy::Close, |rule| rule.policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides() {
        let rule = |prefix: &'static str, policy| SlowRule {
            prefix: Bytes::from_static(prefix.as_bytes()),
            policy,
        };
        let rules = SlowRules::new(vec![
            rule("*", SlowPolicy::DropOldest),
            rule("prices", SlowPolicy::DropOldest),
            rule("prices", SlowPolicy::Conflate),
            rule("prices.orders", SlowPolicy::Close),
        ]);
        let check = |topic: &'static str, policy| {
            let topic = Topic::dotted(Bytes::from_static(topic.as_bytes())).unwrap();
            assert_eq!(rules.policy(&topic), policy, "{topic:?}");
        };
        check("prices", SlowPolicy::Conflate);
        check("prices.eur", SlowPolicy::Conflate);
        check("prices.orders.1", SlowPolicy::Close);
        check("pricesx", SlowPolicy::DropOldest);
        assert_eq!(
            SlowRules::default().policy(&Topic::dotted(Bytes::from_static(b"a")).unwrap()),
            SlowPolicy::Close
        );
    }
}

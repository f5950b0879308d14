//! Rights: who may subscribe to what, and publish where (DESIGN decision 14).
//!
//! The rules are a list in the order of the configuration. For an action the first rule that speaks of it
//! (its flag is set) and whose filter fits decides: the session satisfies `who`, or it is refused. Where there
//! are rules and none fits, the action is refused; without any rule everybody may do everything.
//!
//! A subscription is to a filter, not to a topic. A rule that would allow it fits only if it *covers* the filter;
//! a rule that would refuse it fits as soon as it *overlaps*: so a wide subscription never sees what a narrow
//! rule withholds.

use crate::topic::{Filter, Topic};

/// Whom a rule allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// Every session.
    Anyone,
    /// A session with an identity.
    Authenticated,
    /// No session.
    Nobody,
}

/// One `[[access]]` table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessRule {
    /// The topics it is about: a dotted filter.
    pub filter: Filter,
    /// Whom it allows.
    pub who: Who,
    /// Does it speak of subscribing?
    pub subscribe: bool,
    /// Does it speak of publishing?
    pub publish: bool,
}

/// The rules of a broker.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Access {
    rules: Vec<AccessRule>,
}

impl Access {
    /// Rules in the order of the configuration.
    pub fn new(rules: Vec<AccessRule>) -> Access {
        Access { rules }
    }

    /// May a session subscribe to this filter?
    pub fn may_subscribe(&self, filter: &Filter, authenticated: bool) -> bool {
        if self.rules.is_empty() {
            return true;
        }
        for rule in self.rules.iter().filter(|rule| rule.subscribe) {
            let allows = satisfies(rule.who, authenticated);
            if allows && rule.filter.covers(filter) {
                return true;
            }
            if !allows && rule.filter.overlaps(filter) {
                return false;
            }
        }
        false
    }

    /// May a session publish to this topic?
    pub fn may_publish(&self, topic: &Topic, authenticated: bool) -> bool {
        if self.rules.is_empty() {
            return true;
        }
        self.rules
            .iter()
            .find(|rule| rule.publish && rule.filter.speaks_of(topic))
            .is_some_and(|rule| satisfies(rule.who, authenticated))
    }
}

fn satisfies(who: Who, authenticated: bool) -> bool {
    match who {
        Who::Anyone => true,
        Who::Authenticated => authenticated,
        Who::Nobody => false,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn rule(filter: &'static str, who: Who, subscribe: bool, publish: bool) -> AccessRule {
        AccessRule {
            filter: Filter::dotted(Bytes::from_static(filter.as_bytes())).unwrap(),
            who,
            subscribe,
            publish,
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let access = Access::new(vec![
            rule("public.secret", Who::Nobody, true, true),
            rule("public", Who::Anyone, true, false),
            rule("public", Who::Authenticated, false, true),
        ]);
        let subscribe = |filter: &'static str, authenticated| {
            access.may_subscribe(
                &Filter::dotted(Bytes::from_static(filter.as_bytes())).unwrap(),
                authenticated,
            )
        };
        let publish = |topic: &'static str, authenticated| {
            access.may_publish(
                &Topic::dotted(Bytes::from_static(topic.as_bytes())).unwrap(),
                authenticated,
            )
        };
        assert!(subscribe("public.news", false));
        assert!(!subscribe("public", true), "it would see public.secret");
        assert!(!subscribe("public.*", true));
        assert!(!subscribe("*", true));
        assert!(!subscribe("public.secret.deep", true));
        assert!(!subscribe("other", true));
        assert!(publish("public.news", true) && !publish("public.news", false));
        assert!(!publish("public.secret", true) && !publish("other", true));
    }

    #[test]
    fn without_rules_everybody_may() {
        let access = Access::default();
        assert!(access.may_subscribe(&Filter::dotted(Bytes::from_static(b"a")).unwrap(), false));
        assert!(access.may_publish(&Topic::dotted(Bytes::from_static(b"a")).unwrap(), false));
    }
}

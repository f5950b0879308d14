//! Rights: who may subscribe to what, and publish where (DESIGN decision 14).
//!
//! Two hands decide, and each may only refuse: the broker's rules, and then the lists that a session's own token
//! brought along ([`Identity`]).
//!
//! The rules are a list in the order of the configuration. For an action the first rule that speaks of it
//! (its flag is set) and whose filter fits decides: the session satisfies `who`, or it is refused. Where there
//! are rules and none fits, the action is refused; without any rule everybody may do everything, or, where sessions say
//! who they are, everybody who has.
//!
//! A subscription is to a filter, not to a topic. A rule that would allow it fits only if it *covers* the filter;
//! a rule that would refuse it fits as soon as it *overlaps*: so a wide subscription never sees what a narrow
//! rule withholds.

use crate::topic::{Filter, Topic};

use super::credentials::Identity;

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
    /// The topics it is about.
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
    /// Without a rule, only a session with an identity may do anything.
    authenticated: bool,
}

impl Access {
    /// Rules in the order of the configuration.
    pub fn new(rules: Vec<AccessRule>) -> Access {
        Access {
            rules,
            authenticated: false,
        }
    }

    /// The same where sessions can say who they are: without any rule, everything needs an identity.
    pub fn for_authenticated(self) -> Access {
        Access {
            authenticated: true,
            ..self
        }
    }

    /// Is there anything to do here for a session that does not say who it is?
    pub fn admits_anyone(&self) -> bool {
        match self.rules.as_slice() {
            [] => !self.authenticated,
            rules => rules.iter().any(|rule| rule.who == Who::Anyone),
        }
    }

    /// May a session subscribe to this filter?
    pub fn may_subscribe(&self, filter: &Filter, identity: Option<&Identity>) -> bool {
        self.allow_subscribe(filter, identity.is_some())
            && identity.is_none_or(|identity| identity.may_subscribe(filter))
    }

    fn allow_subscribe(&self, filter: &Filter, authenticated: bool) -> bool {
        if self.rules.is_empty() {
            return authenticated || !self.authenticated;
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
    pub fn may_publish(&self, topic: &Topic, identity: Option<&Identity>) -> bool {
        self.allow_publish(topic, identity.is_some())
            && identity.is_none_or(|identity| identity.may_publish(topic))
    }

    fn allow_publish(&self, topic: &Topic, authenticated: bool) -> bool {
        if self.rules.is_empty() {
            return authenticated || !self.authenticated;
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

    fn filter(text: &'static str) -> Filter {
        Filter::dotted(Bytes::from_static(text.as_bytes())).unwrap()
    }

    fn topic(text: &'static str) -> Topic {
        Topic::channel(Bytes::from_static(text.as_bytes())).unwrap()
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let access = Access::new(vec![
            rule("public.secret", Who::Nobody, true, true),
            rule("public", Who::Anyone, true, false),
            rule("public", Who::Authenticated, false, true),
        ]);
        let me = Identity::named("me");
        let subscribe = |text, identity| access.may_subscribe(&filter(text), identity);
        let publish = |text, identity| access.may_publish(&topic(text), identity);
        let me = Some(&me);
        assert!(subscribe("public.news", None));
        assert!(!subscribe("public", me), "it would see public.secret");
        assert!(!subscribe("public.*", me));
        assert!(!subscribe("*", me));
        assert!(!subscribe("public.secret.deep", me));
        assert!(!subscribe("other", me));
        assert!(publish("public.news", me) && !publish("public.news", None));
        assert!(!publish("public.secret", me) && !publish("other", me));
    }

    #[test]
    fn names_that_are_no_dotted_topics_have_rules_of_their_own() {
        let named = |filter, who| AccessRule {
            filter,
            who,
            subscribe: true,
            publish: true,
        };
        let access = Access::new(vec![
            named(Filter::exact("a..b".into()).unwrap(), Who::Nobody),
            named(Filter::glob("user:*".into()).unwrap(), Who::Anyone),
            rule("news", Who::Anyone, true, true),
            named(Filter::exact("news: all".into()).unwrap(), Who::Anyone),
        ]);
        let exact = |name: &'static str| Filter::exact(name.into()).unwrap();
        let glob = |name: &'static str| Filter::glob(name.into()).unwrap();
        for (filter, name, expected) in [
            (exact("user:1"), "user:1", true),
            (exact("a..b"), "a..b", false),
            (exact("news: all"), "news: all", true),
            // A dotted rule is about names that are dotted topics, whoever says them how.
            (exact("news.uk"), "news.uk", true),
            (exact("news..uk"), "news..uk", false),
            (glob("user:*"), "user:", true),
        ] {
            assert_eq!(access.may_subscribe(&filter, None), expected, "{name}");
            assert_eq!(access.may_publish(&topic(name), None), expected, "{name}");
        }
        for wide in [glob("*"), glob("a*"), glob("user*"), filter("*")] {
            assert!(!access.may_subscribe(&wide, None), "{wide:?}");
        }
    }

    #[test]
    fn without_rules_everybody_may_or_everybody_who_is_somebody() {
        let open = Access::default();
        assert!(open.may_subscribe(&filter("a"), None));
        assert!(open.may_publish(&topic("a"), None));
        assert!(open.admits_anyone());
        let closed = Access::default().for_authenticated();
        let me = Identity::named("me");
        for (identity, may) in [(None, false), (Some(&me), true)] {
            for name in ["a", "a..b", ""] {
                let exact = Filter::exact(name.into()).unwrap();
                assert_eq!(closed.may_subscribe(&exact, identity), may);
                assert_eq!(closed.may_publish(&topic(name), identity), may);
            }
        }
        assert!(!closed.admits_anyone());
        let ruled = |who| Access::new(vec![rule("a", who, true, false)]).for_authenticated();
        assert!(ruled(Who::Anyone).admits_anyone());
        assert!(!ruled(Who::Authenticated).admits_anyone());
        assert!(ruled(Who::Authenticated).may_subscribe(&filter("a"), Some(&me)));
    }

    #[test]
    fn a_token_s_lists_narrow_what_the_rules_allow() {
        let access = Access::new(vec![rule("news", Who::Authenticated, true, true)]);
        let me = |subscribe: Option<&[&'static str]>, publish: Option<&[&'static str]>| {
            let list = |texts: &[&'static str]| texts.iter().map(|text| filter(text)).collect();
            Identity {
                subscribe: subscribe.map(list),
                publish: publish.map(list),
                ..Identity::named("me")
            }
        };
        for (identity, subscribes, publishes) in [
            (me(None, None), "news news.uk", "news news.uk"),
            (me(Some(&["news.uk", "*"]), Some(&[])), "news news.uk", ""),
            (me(Some(&["news.uk"]), Some(&["=news"])), "news.uk", "news"),
            (me(Some(&[]), Some(&["sport", "news.uk"])), "", "news.uk"),
            // No list opens what the rules keep shut.
            (me(Some(&["sport"]), Some(&["sport"])), "", ""),
        ] {
            for name in ["news", "news.uk", "sport"] {
                let (subscribes, publishes) = [subscribes, publishes]
                    .map(|names| names.split(' ').any(|one| one == name))
                    .into();
                let found = access.may_subscribe(&filter(name), Some(&identity));
                assert_eq!(found, subscribes, "{identity:?} {name}");
                let found = access.may_publish(&topic(name), Some(&identity));
                assert_eq!(found, publishes, "{identity:?} {name}");
            }
            assert!(!access.may_subscribe(&filter("*"), Some(&identity)));
        }
    }
}

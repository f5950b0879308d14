//! What a dialect means to a session: which frames it is spoken in, what a client may ask for by its query, and which
//! of its generation's rules are not about bytes.

use super::{Dialect, Generation};
use crate::ws::frame::Opcode;

impl Dialect {
    /// The dialect that a request's query asks for: `v=0` is the oldest envelope, `v=1` generations 1 and 2, `v=3` those
    /// of npm, and `binary=0` or `binary=1` the form. What it does not say, or says in other words, stays as it is.
    pub fn asked_by(self, query: &str) -> Dialect {
        let mut asked = self;
        for pair in query.split('&') {
            match pair {
                "v=0" => asked.generation = Generation::Zero,
                "v=1" | "v=2" => asked.generation = Generation::One,
                "v=3" => asked.generation = Generation::Three,
                "binary=0" => asked.binary = false,
                "binary=1" => asked.binary = true,
                _ => {}
            }
        }
        Dialect::new(asked.generation, asked.binary)
    }

    /// The frames that messages to the client go in.
    pub fn opcode(self) -> Opcode {
        if self.binary {
            Opcode::Binary
        } else {
            Opcode::Text
        }
    }

    /// The frame that [`Dialect::ping`] goes in.
    pub fn ping_opcode(self) -> Opcode {
        if self.is_ping_binary() {
            Opcode::Binary
        } else {
            Opcode::Text
        }
    }

    /// The dialect that stands for all with the same deliveries.
    pub fn of_deliveries(self) -> Dialect {
        match self.generation {
            Generation::Zero => self,
            Generation::One | Generation::Three => Dialect {
                generation: Generation::Three,
                ..self
            },
        }
    }

    /// Is a publication relayed only from a client that is subscribed to its channel? The oldest server relayed all.
    pub fn relays_for_subscribers_only(self) -> bool {
        match self.generation {
            Generation::Zero => false,
            Generation::One | Generation::Three => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_asks_for_a_dialect() {
        let check = |query: &str, generation, binary| {
            let asked = Dialect::new(Generation::Three, false).asked_by(query);
            assert_eq!(asked, Dialect { generation, binary }, "{query}");
        };
        check("", Generation::Three, false);
        check("v=0", Generation::Zero, false);
        check("v=0&binary=1", Generation::Zero, false);
        check("v=1", Generation::One, false);
        check("binary=1&v=2", Generation::One, true);
        check("token=x&v=3&binary=1", Generation::Three, true);
        check("v=4&binary=yes&v", Generation::Three, false);
        let binary = Dialect::new(Generation::One, true);
        assert!(!binary.asked_by("binary=0").binary);
        assert_eq!(binary.asked_by("x=1"), binary);
    }

    #[test]
    fn generations_with_the_same_deliveries_share_them() {
        for binary in [false, true] {
            let one = Dialect::new(Generation::One, binary);
            let three = Dialect::new(Generation::Three, binary);
            assert_eq!(one.of_deliveries(), three.of_deliveries());
            let zero = Dialect::new(Generation::Zero, binary);
            assert_ne!(zero.of_deliveries(), three.of_deliveries());
        }
    }
}

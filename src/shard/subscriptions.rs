//! The filters that a session subscribes to, each with the session's place among its members.
//!
//! Most sessions have one, which needs no memory of its own, or a few; some have a thousand, and a hash table.

use hashbrown::HashMap;
use smallvec::{SmallVec, smallvec};

use crate::topic::tree::FilterId;

/// As many are searched one by one.
const FEW: usize = 8;

type Table = HashMap<FilterId, u32, foldhash::fast::FixedState>;

/// Filters and places.
#[derive(Debug, Default)]
pub struct Subscriptions(Inner);

#[derive(Debug, Default)]
enum Inner {
    #[default]
    None,
    One((FilterId, u32)),
    /// Two or more, in a box.
    Few(Box<SmallVec<[(FilterId, u32); 4]>>),
    Many(Box<Table>),
}

impl Subscriptions {
    /// How many.
    pub fn len(&self) -> usize {
        match &self.0 {
            Inner::None => 0,
            Inner::One(_) => 1,
            Inner::Few(few) => few.len(),
            Inner::Many(many) => many.len(),
        }
    }

    /// None?
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Is this filter among them?
    pub fn contains(&self, filter: FilterId) -> bool {
        match &self.0 {
            Inner::None => false,
            Inner::One((of, _)) => *of == filter,
            Inner::Few(few) => few.iter().any(|(of, _)| *of == filter),
            Inner::Many(many) => many.contains_key(&filter),
        }
    }

    /// Adds a filter, or gives one that is there another place.
    pub fn insert(&mut self, filter: FilterId, place: u32) {
        let new = (filter, place);
        match &mut self.0 {
            Inner::None => self.0 = Inner::One(new),
            Inner::One(one) if one.0 == filter => *one = new,
            Inner::One(one) => self.0 = Inner::Few(Box::new(smallvec![*one, new])),
            Inner::Few(few) => {
                if let Some(of) = few.iter_mut().find(|(of, _)| *of == filter) {
                    *of = new;
                } else if few.len() < FEW {
                    few.push(new);
                } else {
                    self.0 = Inner::Many(Box::new(few.drain(..).chain([new]).collect()));
                }
            }
            Inner::Many(many) => {
                many.insert(filter, place);
            }
        }
    }

    /// Takes a filter out; its place.
    pub fn remove(&mut self, filter: FilterId) -> Option<u32> {
        match &mut self.0 {
            Inner::None => None,
            Inner::One((of, place)) => {
                let place = (*of == filter).then_some(*place)?;
                self.0 = Inner::None;
                Some(place)
            }
            Inner::Few(few) => {
                let index = few.iter().position(|(of, _)| *of == filter)?;
                Some(few.swap_remove(index).1)
            }
            Inner::Many(many) => many.remove(&filter),
        }
    }

    /// All of them, in an order that is the same in each run.
    pub fn iter(&self) -> impl Iterator<Item = (FilterId, u32)> {
        let (few, many) = match &self.0 {
            Inner::None => (&[][..], None),
            Inner::One(one) => (std::slice::from_ref(one), None),
            Inner::Few(few) => (few.as_slice(), None),
            Inner::Many(many) => (&[][..], Some(many)),
        };
        let many = many
            .into_iter()
            .flat_map(|many| many.iter())
            .map(|(filter, place)| (*filter, *place));
        few.iter().copied().chain(many)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map(steps in proptest::collection::vec((any::<bool>(), 0..30_u32, 0..99_u32), 0..80)) {
            let mut own = Subscriptions::default();
            let mut twin = BTreeMap::new();
            for (is_added, filter, place) in steps {
                if is_added {
                    own.insert(FilterId(filter), place);
                    twin.insert(filter, place);
                } else {
                    prop_assert_eq!(own.remove(FilterId(filter)), twin.remove(&filter));
                }
                prop_assert_eq!((own.len(), own.is_empty()), (twin.len(), twin.is_empty()));
                prop_assert_eq!(own.contains(FilterId(filter)), twin.contains_key(&filter));
                let all: BTreeMap<_, _> = own.iter().map(|(of, place)| (of.0, place)).collect();
                prop_assert_eq!(&all, &twin);
            }
        }
    }
}

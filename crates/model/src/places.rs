//! Who gets one of a bounded number of places, and who has to leave for it: connections to a port that anybody can
//! reach.
//!
//! A place belongs to a holder (an address, a node). Whoever holds most loses its oldest place when there is none
//! left, so that one holder's flood costs that holder, and those who come late get in all the same. A *kept* place
//! (a request is being answered) is not taken away.

use std::collections::BTreeMap;

/// A place that was given; numbers grow, so the smaller of two is the older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// How many places there are. *Range:* both at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaceLimits {
    pub total: usize,
    pub per_holder: usize,
}

#[derive(Debug)]
struct Place<H, V> {
    holder: H,
    kept: bool,
    value: V,
}

/// A bounded set of places. `V` is what its owner needs to end the one that loses its place.
#[derive(Debug)]
pub struct Places<H, V> {
    limits: PlaceLimits,
    taken: BTreeMap<Ticket, Place<H, V>>,
    next: u64,
}

impl<H: Ord + Clone, V> Places<H, V> {
    pub fn new(limits: PlaceLimits) -> Self {
        Self { limits, taken: BTreeMap::new(), next: 0 }
    }

    pub fn len(&self) -> usize {
        self.taken.len()
    }

    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Gives `holder` a place; the second part is what was in the place that was taken away for it. `None`: all
    /// places that could be taken away are kept.
    pub fn take(&mut self, holder: H, value: V) -> Option<(Ticket, Option<V>)> {
        let own = self.taken.values().filter(|place| place.holder == holder).count();
        let leaves = if own >= self.limits.per_holder {
            Some(self.oldest(&holder)?)
        } else if self.taken.len() >= self.limits.total {
            Some(self.oldest_of_the_biggest(|_| true)?)
        } else {
            None
        };
        let gone = leaves.and_then(|ticket| self.leave(ticket));
        let ticket = Ticket(self.next);
        self.next += 1;
        self.taken.insert(ticket, Place { holder, kept: false, value });
        Some((ticket, gone))
    }

    /// As [`Places::take`], for one of the guests: all of them have no more than `guests.total` of the places, and each no
    /// more than `guests.per_holder`, so that what is left is the others' whatever guests do.
    pub fn take_as_guest(
        &mut self,
        holder: H,
        value: V,
        is_guest: impl Fn(&H) -> bool,
        guests: PlaceLimits,
    ) -> Option<(Ticket, Option<V>)> {
        let count = |fits: &dyn Fn(&H) -> bool| self.taken.values().filter(|p| fits(&p.holder)).count();
        let leaves = if count(&|other| *other == holder) >= guests.per_holder {
            self.oldest(&holder)?
        } else if count(&is_guest) >= guests.total {
            self.oldest_of_the_biggest(is_guest)?
        } else {
            return self.take(holder, value);
        };
        let gone = self.leave(leaves);
        let (ticket, _) = self.take(holder, value)?;
        Some((ticket, gone))
    }

    /// Gives the place back; does nothing if it was taken away.
    pub fn leave(&mut self, ticket: Ticket) -> Option<V> {
        self.taken.remove(&ticket).map(|place| place.value)
    }

    /// Says whether a place may be taken away.
    pub fn keep(&mut self, ticket: Ticket, kept: bool) {
        if let Some(place) = self.taken.get_mut(&ticket) {
            place.kept = kept;
        }
    }

    /// Takes away the place of whoever would be the next to lose one: when something else than places ran out.
    pub fn make_room(&mut self) -> Option<V> {
        let ticket = self.oldest_of_the_biggest(|_| true)?;
        self.leave(ticket)
    }

    fn oldest(&self, holder: &H) -> Option<Ticket> {
        self.taken.iter().find(|(_, place)| place.holder == *holder && !place.kept).map(|(ticket, _)| *ticket)
    }

    fn oldest_of_the_biggest(&self, of: impl Fn(&H) -> bool) -> Option<Ticket> {
        let mut held: BTreeMap<&H, (usize, Ticket)> = BTreeMap::new();
        for (ticket, place) in self.taken.iter().filter(|(_, place)| !place.kept && of(&place.holder)) {
            held.entry(&place.holder).or_insert((0, *ticket)).0 += 1;
        }
        // Of two that hold as many, the one whose oldest place is older.
        held.into_values().max_by_key(|(count, oldest)| (*count, std::cmp::Reverse(*oldest))).map(|(_, t)| t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(total: usize, per_holder: usize) -> Places<char, u32> {
        Places::new(PlaceLimits { total, per_holder })
    }

    #[test]
    fn a_holder_with_all_its_places_loses_its_own_oldest() {
        let mut places = places(10, 2);
        for n in 0..2 {
            assert_eq!(places.take('a', n).unwrap().1, None);
        }
        places.take('b', 9);
        assert_eq!(places.take('a', 2).unwrap().1, Some(0));
        assert_eq!(places.take('a', 3).unwrap().1, Some(1));
        assert_eq!(places.len(), 3);
    }

    #[test]
    fn the_holder_of_most_places_makes_room_for_others() {
        let mut places = places(4, 3);
        places.take('b', 9);
        for n in 0..3 {
            places.take('a', n);
        }
        assert_eq!(places.take('c', 7).unwrap().1, Some(0), "b came first, but a holds most");
        assert_eq!(places.take('d', 8).unwrap().1, Some(1));
    }

    #[test]
    fn a_kept_place_stays() {
        let mut places = places(2, 2);
        let (first, _) = places.take('a', 0).unwrap();
        let (second, _) = places.take('a', 1).unwrap();
        places.keep(first, true);
        assert_eq!(places.take('b', 2).unwrap().1, Some(1));
        assert_eq!(places.leave(second), None, "it was taken away");
        places.keep(first, false);
        assert_eq!(places.take('b', 3).unwrap().1, Some(0));
        let (third, _) = places.take('b', 4).unwrap();
        places.keep(third, true);
        places.take('b', 5).unwrap();
        for ticket in places.taken.keys().copied().collect::<Vec<_>>() {
            places.keep(ticket, true);
        }
        assert!(places.take('c', 6).is_none() && places.make_room().is_none());
    }

    #[test]
    fn guests_leave_places_for_the_others_and_for_each_other() {
        let mut places = places(8, 8);
        let guests = PlaceLimits { total: 6, per_holder: 4 };
        let enters = |places: &mut Places<char, u32>, who, n| {
            let (ticket, gone) = places.take_as_guest(who, n, |holder| *holder != 'r', guests)?;
            places.keep(ticket, true);
            Some(gone)
        };
        for n in 0..4 {
            assert_eq!(enters(&mut places, 'a', n), Some(None));
        }
        assert_eq!(enters(&mut places, 'a', 4), None, "it has its part, all of it in use");
        for n in 5..7 {
            assert_eq!(enters(&mut places, 'b', n), Some(None));
        }
        assert_eq!(enters(&mut places, 'c', 7), None, "guests have theirs");
        let idle = *places.taken.keys().next().unwrap();
        places.keep(idle, false);
        assert_eq!(enters(&mut places, 'c', 8), Some(Some(0)), "what a guest does not use is another's");
        for n in 9..11 {
            assert_eq!(places.take('r', n).unwrap().1, None);
        }
    }
}

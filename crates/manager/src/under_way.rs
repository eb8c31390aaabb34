//! What people have under way at a manager: requests that are not answered, answers that are not taken, ways to other
//! nodes. All of it costs memory and a part of a connection that others need too.
//!
//! One may begin another request while he has fewer under way than there are places left: who takes all that he can gets
//! half of them, the next one half of the rest, and there is always one for somebody who has none. Operators have places of
//! their own, so that none of it keeps them from ending it. *Source:* dynamic thresholds of shared buffers (A. K.
//! Choudhury, E. L. Hahne, IEEE/ACM Transactions on Networking 6(2), 1998), with a factor of 1.

use crate::authorize::Caller;
use model::UserId;
use pki::PersonToken;
use proto::{
    WireId as _,
    control::{PersonClaim, person_claim::Proof},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tonic::Status;

/// *Limit* of what all users of the swarm have under way at one manager; one of them has at most half of it.
pub const USERS_UNDER_WAY_MAX: usize = 512;
/// *Limit* of what operators have under way at one manager, of all hosts together.
const OPERATORS_UNDER_WAY_MAX: usize = 2048;

/// Who asks, as far as places are counted. Says nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// Of a manager's host.
    Operator { uid: u32, name: String, host: String },
    /// However many tokens and certificates he has.
    User(UserId),
    /// What was shown is nobody's.
    Nobody,
}

impl Account {
    /// Returns whose request it is by what was shown; whether that is true is for others to judge.
    pub fn of(claim: &PersonClaim) -> Self {
        let user = match &claim.proof {
            Some(Proof::Operator(operator)) => {
                let (name, host) = (operator.name.clone(), operator.host.clone());
                return Self::Operator { uid: operator.uid, name, host };
            }
            Some(Proof::Token(text)) => text.parse::<PersonToken>().ok().map(|token| token.user),
            Some(Proof::Certificate(certificate)) => UserId::from_wire(&certificate.user).ok(),
            None => None,
        };
        user.map_or(Self::Nobody, Self::User)
    }

    fn is_operator(&self) -> bool {
        matches!(self, Self::Operator { .. })
    }
}

impl Caller {
    /// Returns whose request it is.
    pub(crate) fn account(&self) -> Account {
        self.claim.as_ref().map_or(Account::Nobody, |(claim, _)| Account::of(claim))
    }
}

/// Places that some share; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Shares(Arc<Table>);

#[derive(Debug)]
struct Table {
    total: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    each: BTreeMap<Account, usize>,
}

impl Shares {
    pub(crate) fn new(total: usize) -> Self {
        Self(Arc::new(Table { total, taken: Mutex::default() }))
    }

    /// Gives a place until the result is dropped.
    ///
    /// # Errors
    /// How many he has: as many as are left to all others.
    pub(crate) fn take(&self, account: Account) -> Result<Place, usize> {
        let mut taken = self.lock();
        let has = taken.each.get(&account).copied().unwrap_or_default();
        if has >= self.0.total - taken.all {
            return Err(has);
        }
        taken.all += 1;
        *taken.each.entry(account.clone()).or_default() += 1;
        drop(taken);
        Ok(Place { shares: self.clone(), account })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many are taken.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        self.lock().all
    }
}

/// Of one request.
#[derive(Debug)]
pub struct Place {
    shares: Shares,
    account: Account,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.shares.lock();
        taken.all -= 1;
        if let Some(has) = taken.each.get_mut(&self.account) {
            *has -= 1;
            if *has == 0 {
                taken.each.remove(&self.account);
            }
        }
    }
}

/// The places of one manager; cheap to clone.
#[derive(Debug, Clone)]
pub struct UnderWay {
    users: Shares,
    operators: Shares,
}

impl Default for UnderWay {
    fn default() -> Self {
        Self { users: Shares::new(USERS_UNDER_WAY_MAX), operators: Shares::new(OPERATORS_UNDER_WAY_MAX) }
    }
}

impl UnderWay {
    /// Gives a place for one request of somebody who has been let in. It is free again when the result is dropped.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED: he has as many as are left to all others.
    pub fn take(&self, account: Account) -> Result<Place, Status> {
        let shares = if account.is_operator() { &self.operators } else { &self.users };
        shares.take(account).map_err(|has| {
            Status::resource_exhausted(format!(
                "you have {has} requests under way at this manager, and others need room, too; hint: end those that go \
                 on (followed logs and events, transfers), try again in a moment, or ask another manager"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::control::{Operator, UserCertificate};

    fn user(id: u128) -> Account {
        Account::User(UserId(id))
    }

    fn as_many_as_possible(under_way: &UnderWay, account: &Account) -> Vec<Place> {
        std::iter::from_fn(|| under_way.take(account.clone()).ok()).collect()
    }

    #[test]
    fn nobody_has_more_than_he_leaves_to_others_and_operators_have_their_own() {
        let under_way = UnderWay::default();
        let mut hogs = Vec::new();
        for (hog, gets) in [256, 128, 64, 32, 16, 8, 4, 2, 1].into_iter().enumerate() {
            let places = as_many_as_possible(&under_way, &user(hog as u128));
            assert_eq!(places.len(), gets);
            hogs.push(places);
        }
        let refused = under_way.take(user(0)).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        let said = refused.message();
        assert!(said.contains("256 requests under way") && said.contains("try again"), "{said}");
        let last = under_way.take(user(99)).expect("one is left for somebody who has none");
        let root = |host: &str| Account::Operator { uid: 0, name: "root".into(), host: host.into() };
        let operators = as_many_as_possible(&under_way, &root("a"));
        assert_eq!(operators.len(), OPERATORS_UNDER_WAY_MAX / 2);
        drop(under_way.take(root("b")).expect("another host's"));

        // What ends is others' at once.
        hogs[0].truncate(100);
        assert_eq!(as_many_as_possible(&under_way, &user(1)).len(), 14, "(512 - 356) - 128, shared");
        drop((hogs, last, operators));
        for shares in [&under_way.users, &under_way.operators] {
            assert!(shares.taken() == 0 && shares.lock().each.is_empty(), "{shares:?}");
        }
    }

    #[test]
    fn a_user_is_one_account_by_whatever_he_shows() {
        let id = UserId(7);
        let claim = |proof| PersonClaim { proof, from: String::new() };
        let of = |proof| Account::of(&claim(Some(proof)));
        let tokens = [(); 2].map(|()| PersonToken::generate(id).unwrap().to_string());
        assert_ne!(tokens[0], tokens[1]);
        for token in tokens {
            assert_eq!(of(Proof::Token(token)), Account::User(id));
        }
        let certificate = UserCertificate { user: id.to_wire(), serial: "5f".into() };
        assert_eq!(of(Proof::Certificate(certificate)), Account::User(id));
        assert_eq!(of(Proof::Token("no token".into())), Account::Nobody);
        assert_eq!(Account::of(&claim(None)), Account::Nobody);
        let operator = Operator { uid: 1000, name: "ops".into(), host: "h".into() };
        assert!(of(Proof::Operator(operator)).is_operator());
    }
}

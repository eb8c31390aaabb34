//! Our own nftables encoder: one `table rswarm` per namespace and [`Family`], described as a value ([`Ruleset`]),
//! read back as the same value, and changed by the difference of two values in one transaction.
//!
//! The table bears our comment; one of our name without it and without rules of ours is [`Owner::SomebodyElse`].
//! Rules are compared by a fingerprint kept in their comment, because the kernel gives expressions back in
//! other words. Measured: one element 4 us, `nft` 15 ms.
//! Source: kernel include/uapi/linux/netfilter/nf_tables.h.

mod foreign;
mod rule;

pub(crate) use foreign::{Fate, Foreign, Packet, old_tables};
pub(crate) use rule::{Rule, field};

use crate::netlink::{
    APPEND, CREATE, DUMP, EXCL, Message, Socket, attribute, attributes, read_be32, read_str,
};
use std::{collections::BTreeMap, fmt, io};

pub(crate) const TABLE: &str = "rswarm";
/// Comment of the table, as `nft` writes one.
const COMMENT: &[u8] = b"\0\x0fmade by rswarm\0";
const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = SUBSYSTEM;
const GETTABLE: u16 = SUBSYSTEM | 1;
const DELTABLE: u16 = SUBSYSTEM | 2;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const GETCHAIN: u16 = SUBSYSTEM | 4;
const DELCHAIN: u16 = SUBSYSTEM | 5;
const NEWRULE: u16 = SUBSYSTEM | 6;
const GETRULE: u16 = SUBSYSTEM | 7;
const DELRULE: u16 = SUBSYSTEM | 8;
const NEWSET: u16 = SUBSYSTEM | 9;
const GETSET: u16 = SUBSYSTEM | 10;
const DELSET: u16 = SUBSYSTEM | 11;
const NEWSETELEM: u16 = SUBSYSTEM | 12;
const GETSETELEM: u16 = SUBSYSTEM | 13;
const DELSETELEM: u16 = SUBSYSTEM | 14;

const LIST_ELEM: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const VERDICT_TYPE: u32 = 0xffff_ff00;
const SET_IS_MAP: u32 = 8;
const GOTO: i32 = -4;
/// `NFPROTO_IPV4`.
const IPV4_FAMILY: u8 = 2;
/// `NF_DROP` as the policy of a chain.
const POLICY_DROP: u32 = 0;
/// Elements in one message; a nest holds 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 500;

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Family {
    /// IPv4 and IPv6.
    #[default]
    Inet = 1,
    /// Frames that come in by ports of bridges.
    Bridge = 7,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Bridge => "bridge",
        })
    }
}

/// Whose work a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Owner {
    #[default]
    Us,
    /// Ours, without the comment. It is made anew.
    EarlierRelease,
    SomebodyElse,
}

/// The whole table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ruleset {
    pub(crate) owner: Owner,
    pub(crate) sets: BTreeMap<String, Set>,
    pub(crate) chains: BTreeMap<String, Chain>,
}

/// A set, or a map when it holds values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Set {
    /// `nft`'s type numbers, for its listing, and lengths in bytes.
    key: Vec<Type>,
    holds: Holds,
    pub(crate) elements: BTreeMap<Vec<u8>, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Type {
    number: u32,
    bytes: u32,
}

pub(crate) const IPV4: Type = Type { number: 7, bytes: 4 };
pub(crate) const IPV6: Type = Type { number: 8, bytes: 16 };
pub(crate) const ETHER: Type = Type { number: 9, bytes: 6 };
pub(crate) const PROTO: Type = Type { number: 12, bytes: 1 };
pub(crate) const PORT: Type = Type { number: 13, bytes: 2 };
/// Also used for indexes: host-endian, as `numgen` gives them.
pub(crate) const MARK: Type = Type { number: 19, bytes: 4 };
pub(crate) const IFNAME: Type = Type { number: 41, bytes: 16 };

#[derive(Debug, Clone, PartialEq, Eq)]
enum Holds {
    Nothing,
    Verdicts,
    Values(Vec<Type>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    None,
    Goto(String),
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Chain {
    pub(crate) base: Option<Base>,
    pub(crate) rules: Vec<Rule>,
}

/// Where a chain meets packets; its policy is always accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    kind: String,
    hook: u32,
    priority: i32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

impl Ruleset {
    /// Whether all of `other` is here: its rules, and every element of its sets.
    pub(crate) fn has(&self, other: &Self) -> bool {
        let holds = |set: &Set, other: &Set| {
            set.shape() == other.shape()
                && other.elements.iter().all(|(key, value)| set.elements.get(key) == Some(value))
        };
        self.owner == other.owner
            && self.chains == other.chains
            && other.sets.iter().all(|(name, set)| self.sets.get(name).is_some_and(|own| holds(own, set)))
    }

    /// Adds the elements that sets of `before` have on top of those here.
    pub(crate) fn keep(&mut self, before: &Self) {
        for (name, set) in &mut self.sets {
            let older = before.sets.get(name).filter(|older| older.shape() == set.shape());
            for (key, value) in older.into_iter().flat_map(|older| &older.elements) {
                set.elements.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
    }
}

impl Set {
    pub(crate) fn new(key: &[Type]) -> Self {
        Self { key: key.to_vec(), holds: Holds::Nothing, elements: BTreeMap::new() }
    }

    pub(crate) fn verdict_map(key: &[Type]) -> Self {
        Self { holds: Holds::Verdicts, ..Self::new(key) }
    }

    pub(crate) fn map(key: &[Type], value: &[Type]) -> Self {
        Self { holds: Holds::Values(value.to_vec()), ..Self::new(key) }
    }

    pub(crate) fn insert(&mut self, key: Vec<u8>) {
        self.elements.insert(key, Value::None);
    }

    pub(crate) fn insert_goto(&mut self, key: Vec<u8>, chain: String) {
        self.elements.insert(key, Value::Goto(chain));
    }

    pub(crate) fn insert_value(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.elements.insert(key, Value::Bytes(value));
    }

    fn shape(&self) -> (u32, u32, u32, u32) {
        let data = match &self.holds {
            Holds::Nothing => (0, 0),
            Holds::Verdicts => (VERDICT_TYPE, 16),
            Holds::Values(types) => (type_number(types), length(types)),
        };
        (type_number(&self.key), length(&self.key), data.0, data.1)
    }
}

impl Chain {
    pub(crate) fn base(kind: &str, hook: Hook, priority: i32, rules: Vec<Rule>) -> Self {
        Self { base: Some(Base { kind: kind.to_owned(), hook: hook as u32, priority }), rules }
    }

    pub(crate) fn plain(rules: Vec<Rule>) -> Self {
        Self { base: None, rules }
    }
}

fn type_number(types: &[Type]) -> u32 {
    types.iter().fold(0, |n, t| n << 6 | t.number)
}

fn length(types: &[Type]) -> u32 {
    match types {
        [one] => one.bytes,
        many => many.iter().map(|t| t.bytes.next_multiple_of(4)).sum(),
    }
}

/// Joins the fields of a concatenated key: each padded to four bytes.
pub(crate) fn concat(fields: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::new();
    for field in fields {
        key.extend_from_slice(field);
        key.resize(key.len().next_multiple_of(4), 0);
    }
    key
}

/// An interface name as a key.
pub(crate) fn ifname(name: &str) -> [u8; 16] {
    let mut key = [0; 16];
    for (to, from) in key.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    key
}

/// A refused transaction: nothing of it is in force.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The step the kernel refused, in words.
    pub(crate) step: String,
    pub(crate) source: io::Error,
}

/// A socket for one `table rswarm` of one namespace.
#[derive(Debug)]
pub(crate) struct Nft {
    socket: Socket,
    family: Family,
}

impl Nft {
    /// Opens a socket in the namespace of the calling thread.
    pub(crate) fn open(family: Family) -> io::Result<Self> {
        Ok(Self { socket: Socket::netfilter()?, family })
    }

    /// Brings the table from `from` (`None`: there is none) to `to`, in one transaction.
    pub(crate) fn change(&mut self, from: Option<&Ruleset>, to: &Ruleset) -> Result<(), Refused> {
        let steps = Steps::between(self.family, from, to);
        self.commit(steps)
    }

    /// Family and name of the table.
    pub(crate) fn name(&self) -> String {
        format!("{} {TABLE}", self.family)
    }

    /// Deletes the table; fine when there is none, or when by now it is somebody else's.
    pub(crate) fn delete_table(&mut self) -> Result<(), Refused> {
        let step = format!("read nftables table {}", self.name());
        let read = self.read().map_err(|source| Refused { step, source })?;
        if read.is_some_and(|read| read.owner == Owner::SomebodyElse) {
            return Ok(());
        }
        let mut steps = Steps::new(self.family);
        // Making it first turns "there is none" into success.
        steps.table(NEWTABLE, CREATE);
        steps.table(DELTABLE, 0);
        self.commit(steps)
    }

    fn commit(&mut self, steps: Steps) -> Result<(), Refused> {
        if steps.list.is_empty() {
            return Ok(());
        }
        let (words, messages): (Vec<_>, Vec<_>) = steps.list.into_iter().unzip();
        let mut batch = vec![Message::new(BATCH_BEGIN, 0, &[0, 0, 0, 10])];
        batch.extend(messages);
        batch.push(Message::new(BATCH_END, 0, &[0, 0, 0, 10]));
        self.socket.batch(batch).map_err(|(at, source)| {
            let step = at.and_then(|at| at.checked_sub(1)).and_then(|at| words.into_iter().nth(at));
            Refused { step: step.unwrap_or_else(|| "send an nftables transaction".to_owned()), source }
        })
    }

    /// Reads the table back; `None` when there is none.
    pub(crate) fn read(&mut self) -> io::Result<Option<Ruleset>> {
        let mut get = message(self.family, GETTABLE, 0);
        get.str(1, TABLE);
        let comment = match self.socket.exchange(get) {
            Ok(replies) => {
                let table = replies.first().and_then(|r| r.body.get(4..)).unwrap_or_default();
                attribute(table, 6).map(<[u8]>::to_vec)
            }
            Err(e) if e.raw_os_error() == Some(nix::libc::ENOENT) => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut ruleset = Ruleset::default();
        for body in self.list(GETCHAIN, 1)? {
            read_chain(&body, &mut ruleset);
        }
        for body in self.list(GETRULE, 1)? {
            let chain = attribute(&body, 2).map(read_str).unwrap_or_default();
            let rule = Rule::read(attribute(&body, 7).unwrap_or_default());
            ruleset.chains.entry(chain).or_default().rules.push(rule);
        }
        for body in self.list(GETSET, 1)? {
            let name = attribute(&body, 2).map(read_str).unwrap_or_default();
            // Anonymous sets belong to rules.
            if !name.starts_with("__") {
                let set = self.read_set(&name, &body)?;
                ruleset.sets.insert(name, set);
            }
        }
        let mut rules = ruleset.chains.values().flat_map(|chain| &chain.rules);
        ruleset.owner = match comment.as_deref() {
            Some(COMMENT) => Owner::Us,
            _ if rules.any(Rule::is_ours) => Owner::EarlierRelease,
            _ => Owner::SomebodyElse,
        };
        Ok(Some(ruleset))
    }

    /// Tells whether a chain of somebody else's drops forwarded packets of IPv4 that no rule accepts.
    pub(crate) fn forward_dropped(&mut self) -> io::Result<bool> {
        let get = Message::new(GETCHAIN, DUMP, &[0, 0, 0, 0]);
        let drops = |body: &[u8]| {
            let of_ip = [IPV4_FAMILY, Family::Inet as u8].contains(&body[0]);
            let body = &body[4..];
            let ours = attribute(body, 1).map(read_str).as_deref() == Some(TABLE);
            let hook = attribute(body, 4).and_then(|hook| attribute(hook, 1)).map(read_be32);
            let policy = attribute(body, 5).map(read_be32);
            of_ip && !ours && hook == Some(Hook::Forward as u32) && policy == Some(POLICY_DROP)
        };
        let chains = self.socket.exchange(get)?;
        Ok(chains.iter().any(|chain| chain.body.len() >= 4 && drops(&chain.body)))
    }

    /// Attributes of every object of one sort in our table.
    fn list(&mut self, kind: u16, table_attribute: u16) -> io::Result<Vec<Vec<u8>>> {
        let mut get = message(self.family, kind, DUMP);
        get.str(table_attribute, TABLE);
        let replies = self.socket.exchange(get)?;
        Ok(replies
            .into_iter()
            .filter_map(|r| r.body.get(4..).map(<[u8]>::to_vec))
            .filter(|body| attribute(body, table_attribute).map(read_str).as_deref() == Some(TABLE))
            .collect())
    }

    fn read_set(&mut self, name: &str, body: &[u8]) -> io::Result<Set> {
        let number = |kind| attribute(body, kind).map_or(0, read_be32);
        let opaque = |number, bytes| vec![Type { number, bytes }];
        let holds = match (number(3) & SET_IS_MAP != 0, number(6)) {
            (false, _) => Holds::Nothing,
            (true, VERDICT_TYPE) => Holds::Verdicts,
            (true, kind) => Holds::Values(opaque(kind, number(7))),
        };
        let mut set = Set { key: opaque(number(4), number(5)), holds, elements: BTreeMap::new() };
        let mut get = message(self.family, GETSETELEM, DUMP);
        get.str(1, TABLE).str(2, name);
        for reply in self.socket.exchange(get)? {
            let list = reply.body.get(4..).and_then(|b| attribute(b, 3)).unwrap_or_default();
            set.elements.extend(attributes(list).filter_map(|(_, element)| read_element(element)));
        }
        Ok(set)
    }
}

fn read_chain(body: &[u8], ruleset: &mut Ruleset) {
    let name = attribute(body, 3).map(read_str).unwrap_or_default();
    let base = attribute(body, 4).map(|hook| Base {
        kind: attribute(body, 7).map(read_str).unwrap_or_default(),
        hook: attribute(hook, 1).map_or(0, read_be32),
        priority: attribute(hook, 2).map_or(0, read_be32).cast_signed(),
    });
    ruleset.chains.entry(name).or_default().base = base;
}

fn read_element(element: &[u8]) -> Option<(Vec<u8>, Value)> {
    let key = attribute(element, 1).and_then(|k| attribute(k, DATA_VALUE))?.to_vec();
    let value = match attribute(element, 2) {
        None => Value::None,
        Some(data) => match (attribute(data, DATA_VALUE), attribute(data, DATA_VERDICT)) {
            (Some(bytes), _) => Value::Bytes(bytes.to_vec()),
            (None, Some(verdict)) => {
                Value::Goto(attribute(verdict, VERDICT_CHAIN).map(read_str).unwrap_or_default())
            }
            (None, None) => Value::None,
        },
    };
    Some((key, value))
}

fn message(family: Family, kind: u16, flags: u16) -> Message {
    Message::new(kind, flags, &[family as u8, 0, 0, 0])
}

/// The steps of one transaction, each with its name for error messages.
struct Steps {
    family: Family,
    list: Vec<(String, Message)>,
}

impl Steps {
    fn new(family: Family) -> Self {
        Self { family, list: Vec::new() }
    }

    fn between(family: Family, from: Option<&Ruleset>, to: &Ruleset) -> Self {
        let mut steps = Self::new(family);
        let nothing = Ruleset::default();
        let from = match from {
            Some(from) if from.owner == to.owner && same_shape(from, to) => from,
            Some(_) => {
                // Another release laid the table out otherwise. Connection tracking outlives this.
                steps.table(DELTABLE, 0);
                steps.table(NEWTABLE, CREATE | EXCL);
                &nothing
            }
            // Not into a table of that name that somebody has made meanwhile.
            None => {
                steps.table(NEWTABLE, CREATE | EXCL);
                &nothing
            }
        };
        for (name, chain) in to.chains.iter().filter(|(name, _)| !from.chains.contains_key(*name)) {
            steps.new_chain(name, chain);
        }
        for (id, (name, set)) in (1..).zip(&to.sets) {
            if !from.sets.contains_key(name) {
                steps.new_set(name, set, id);
            }
        }
        for (name, chain) in to.chains.iter().filter(|(name, _)| !from.chains.contains_key(*name)) {
            steps.new_rules(name, &chain.rules);
        }
        for (name, set) in &to.sets {
            let empty = BTreeMap::new();
            let before = from.sets.get(name).map_or(&empty, |s| &s.elements);
            let gone = before.iter().filter(|(k, v)| set.elements.get(*k) != Some(v));
            steps.elements(DELSETELEM, name, gone.map(|(k, _)| (k, &Value::None)));
            let fresh = set.elements.iter().filter(|(k, v)| before.get(*k) != Some(v));
            steps.elements(NEWSETELEM, name, fresh);
        }
        for (name, chain) in &to.chains {
            if from.chains.get(name).is_some_and(|before| before.rules != chain.rules) {
                steps.flush(name);
                steps.new_rules(name, &chain.rules);
            }
        }
        let surplus = || from.chains.keys().filter(|name| !to.chains.contains_key(*name));
        surplus().for_each(|name| steps.flush(name));
        from.sets.keys().filter(|n| !to.sets.contains_key(*n)).for_each(|name| steps.delete_set(name));
        surplus().for_each(|name| steps.delete_chain(name));
        steps
    }

    fn push(&mut self, what: String, message: Message) {
        self.list.push((what, message));
    }

    fn table(&mut self, kind: u16, flags: u16) {
        let mut m = message(self.family, kind, flags);
        m.str(1, TABLE);
        if kind == NEWTABLE {
            m.raw(6, COMMENT);
        }
        let verb = if kind == DELTABLE { "delete" } else { "make" };
        self.push(format!("{verb} nftables table {TABLE}"), m);
    }

    fn new_chain(&mut self, name: &str, chain: &Chain) {
        let mut m = message(self.family, NEWCHAIN, CREATE);
        m.str(1, TABLE).str(3, name);
        if let Some(base) = &chain.base {
            m.nest(4, |m| {
                m.be32(1, base.hook).be32(2, base.priority.cast_unsigned());
            });
            m.be32(5, 1).str(7, &base.kind);
        }
        self.push(format!("make nftables chain {name}"), m);
    }

    fn delete_chain(&mut self, name: &str) {
        let mut m = message(self.family, DELCHAIN, 0);
        m.str(1, TABLE).str(3, name);
        self.push(format!("delete nftables chain {name}"), m);
    }

    fn flush(&mut self, chain: &str) {
        let mut m = message(self.family, DELRULE, 0);
        m.str(1, TABLE).str(2, chain);
        self.push(format!("flush nftables chain {chain}"), m);
    }

    fn new_rules(&mut self, chain: &str, rules: &[Rule]) {
        for rule in rules {
            let mut m = message(self.family, NEWRULE, CREATE | APPEND);
            m.str(1, TABLE).str(2, chain);
            rule.write(&mut m);
            self.push(format!("add nftables rule \"{rule}\" to chain {chain}"), m);
        }
    }

    fn new_set(&mut self, name: &str, set: &Set, id: u32) {
        let (key_type, key_len, data_type, data_len) = set.shape();
        let mut m = message(self.family, NEWSET, CREATE);
        m.str(1, TABLE).str(2, name);
        m.be32(3, if set.holds == Holds::Nothing { 0 } else { SET_IS_MAP });
        m.be32(4, key_type).be32(5, key_len);
        if set.holds != Holds::Nothing {
            m.be32(6, data_type).be32(7, data_len);
        }
        m.be32(10, id);
        self.push(format!("make nftables set {name}"), m);
    }

    fn delete_set(&mut self, name: &str) {
        let mut m = message(self.family, DELSET, 0);
        m.str(1, TABLE).str(2, name);
        self.push(format!("delete nftables set {name}"), m);
    }

    fn elements<'a>(
        &mut self,
        kind: u16,
        set: &str,
        elements: impl Iterator<Item = (&'a Vec<u8>, &'a Value)>,
    ) {
        let elements: Vec<_> = elements.collect();
        for some in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let mut m = message(self.family, kind, if kind == NEWSETELEM { CREATE } else { 0 });
            m.str(1, TABLE).str(2, set).nest(3, |m| {
                for (key, value) in some {
                    m.nest(LIST_ELEM, |m| write_element(m, key, value));
                }
            });
            let verb = if kind == NEWSETELEM { "add" } else { "delete" };
            self.push(format!("{verb} {} elements of nftables set {set}", some.len()), m);
        }
    }
}

fn write_element(m: &mut Message, key: &[u8], value: &Value) {
    m.nest(1, |m| {
        m.raw(DATA_VALUE, key);
    });
    match value {
        Value::None => {}
        Value::Bytes(bytes) => {
            m.nest(2, |m| {
                m.raw(DATA_VALUE, bytes);
            });
        }
        Value::Goto(chain) => {
            m.nest(2, |m| {
                m.nest(DATA_VERDICT, |m| {
                    m.be32(VERDICT_CODE, GOTO.cast_unsigned()).str(VERDICT_CHAIN, chain);
                });
            });
        }
    }
}

/// True when the sets and hooks both have are the same, so that elements and rules alone can differ.
fn same_shape(a: &Ruleset, b: &Ruleset) -> bool {
    a.sets.iter().all(|(name, set)| b.sets.get(name).is_none_or(|other| set.shape() == other.shape()))
        && a.chains
            .iter()
            .all(|(name, chain)| b.chains.get(name).is_none_or(|other| chain.base == other.base))
}

/// Says in words what must change from `from` to `to`; empty when nothing.
pub(crate) fn differences(from: Option<&Ruleset>, to: &Ruleset) -> Vec<String> {
    Steps::between(Family::default(), from, to).list.into_iter().map(|(what, _)| what).collect()
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vips(addresses: &[u8]) -> Ruleset {
        let mut set = Set::new(&[IPV4]);
        for last in addresses {
            set.insert(vec![10, 0, 0, *last]);
        }
        Ruleset { sets: [("vips".to_owned(), set)].into(), ..Ruleset::default() }
    }

    #[test]
    fn equal_rulesets_need_no_steps() {
        assert!(differences(Some(&vips(&[1, 2])), &vips(&[1, 2])).is_empty());
    }

    #[test]
    fn a_changed_element_touches_elements_only() {
        assert_eq!(
            differences(Some(&vips(&[1, 2])), &vips(&[2, 3])),
            ["delete 1 elements of nftables set vips", "add 1 elements of nftables set vips"]
        );
    }

    #[test]
    fn what_goes_is_kept_until_told_otherwise() {
        let mut after = vips(&[2]);
        after.keep(&vips(&[1, 2]));
        assert_eq!(after, vips(&[1, 2]));
    }

    #[test]
    fn concatenated_fields_are_padded() {
        assert_eq!(concat(&[&[6], &80u16.to_be_bytes()]), [6, 0, 0, 0, 0, 80, 0, 0]);
        assert_eq!(length(&[PROTO, PORT, MARK]), 12);
        assert_eq!(length(&[ETHER]), 6);
    }
}

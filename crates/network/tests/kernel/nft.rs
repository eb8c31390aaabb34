//! What `nft` would do and show, said by netlink. Words of its own, not those of `network::nft`: tables are read as the
//! kernel gives them, handles and all, so that what was made anew is not taken for what was there.
//!
//! Source: kernel include/uapi/linux/netfilter/nf_tables.h.

use crate::netlink::{self, HEADER_LEN};
use nix::sys::socket::SockProtocol;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// The name of our tables.
const RSWARM: &str = "rswarm";
const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = SUBSYSTEM;
const GETTABLE: u16 = SUBSYSTEM | 1;
const DELTABLE: u16 = SUBSYSTEM | 2;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const GETCHAIN: u16 = SUBSYSTEM | 4;
const NEWRULE: u16 = SUBSYSTEM | 6;
const GETRULE: u16 = SUBSYSTEM | 7;
const DELRULE: u16 = SUBSYSTEM | 8;
const GETSET: u16 = SUBSYSTEM | 10;
const NEWSETELEM: u16 = SUBSYSTEM | 12;
const GETSETELEM: u16 = SUBSYSTEM | 13;
const DELSETELEM: u16 = SUBSYSTEM | 14;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
/// In all three, the name of the table.
const OF_TABLE: u16 = 1;
const OF_ALL: u8 = 0;

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Inet = 1,
    Ipv4 = 2,
    Bridge = 7,
}

/// A table as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Table {
    pub(crate) chains: BTreeMap<String, Chain>,
    pub(crate) sets: BTreeMap<String, Set>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Chain {
    /// Hook, priority, policy and the like.
    declared: Vec<u8>,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) handle: u64,
    /// Expressions, comment and place.
    whole: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Set {
    /// Types, lengths and flags.
    declared: Vec<u8>,
    pub(crate) elements: BTreeSet<Vec<u8>>,
}

/// How a rule ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict<'a> {
    Accept,
    Drop,
    Jump(&'a str),
}

/// Every table of a namespace, as `nft list tables` names it: `inet rswarm`.
pub(crate) fn tables_of(netns: &Path) -> Vec<String> {
    let name = |body: Vec<u8>| {
        let family = match body[0] {
            1 => "inet",
            2 => "ip",
            3 => "arp",
            5 => "netdev",
            7 => "bridge",
            10 => "ip6",
            other => panic!("a table of family {other}"),
        };
        format!("{family} {}", text(&body, OF_TABLE))
    };
    dump(netns, GETTABLE, OF_ALL, &[]).into_iter().map(name).collect()
}

/// A table of ours: `None` when there is none.
pub(crate) fn table_of(netns: &Path, family: Family) -> Option<Table> {
    named_table_of(netns, family, RSWARM)
}

pub(crate) fn named_table_of(netns: &Path, family: Family, table: &str) -> Option<Table> {
    let own = |kind| {
        let bodies = dump(netns, kind, family as u8, &[]);
        bodies.into_iter().filter(|body| text(body, OF_TABLE) == table).collect::<Vec<_>>()
    };
    own(GETTABLE).first()?;
    let mut read = Table::default();
    for body in own(GETCHAIN) {
        read.chains.insert(text(&body, 3), Chain { declared: body, rules: Vec::new() });
    }
    for body in own(GETRULE) {
        let handle = find(&body, 3).and_then(|v| v.try_into().ok()).map_or(0, u64::from_be_bytes);
        let chain = read.chains.get_mut(&text(&body, 2)).expect("a rule's chain");
        chain.rules.push(Rule { handle, whole: body });
    }
    for body in own(GETSET) {
        let name = text(&body, 2);
        let of_set = [string(1, table), string(2, &name)].concat();
        let mut elements = BTreeSet::new();
        for part in dump(netns, GETSETELEM, family as u8, &of_set) {
            let list = find(&part, 3).unwrap_or_default();
            elements.extend(attributes(list).map(|(_, element)| element.to_vec()));
        }
        read.sets.insert(name, Set { declared: body, elements });
    }
    Some(read)
}

/// Makes the table `inet rswarm` with one chain and its rule, as somebody may who does not know us.
pub(crate) fn add_table_of_somebody(netns: &Path, chain: &str) {
    change(
        netns,
        &[
            message(NEWTABLE, CREATE, Family::Inet, &string(OF_TABLE, RSWARM)),
            message(NEWCHAIN, CREATE, Family::Inet, &[string(OF_TABLE, RSWARM), string(3, chain)].concat()),
            rule(Family::Inet, chain, &[expression("counter", &[]), verdict(Verdict::Accept)].concat()),
        ],
    );
}

pub(crate) fn delete_table(netns: &Path, family: Family) {
    delete_named_table(netns, family, RSWARM);
}

pub(crate) fn delete_named_table(netns: &Path, family: Family, table: &str) {
    change(netns, &[message(DELTABLE, 0, family, &string(OF_TABLE, table))]);
}

/// Takes all rules out of a chain of ours.
pub(crate) fn flush_chain(netns: &Path, family: Family, chain: &str) {
    change(netns, &[message(DELRULE, 0, family, &[string(OF_TABLE, RSWARM), string(2, chain)].concat())]);
}

/// Adds a rule about every packet to a chain of our `inet` table.
pub(crate) fn add_rule(netns: &Path, chain: &str, then: Verdict<'_>) {
    change(netns, &[rule(Family::Inet, chain, &verdict(then))]);
}

/// Takes all elements out of a set or map of our `inet` table.
pub(crate) fn flush_set(netns: &Path, set: &str) {
    change(
        netns,
        &[message(DELSETELEM, 0, Family::Inet, &[string(OF_TABLE, RSWARM), string(2, set)].concat())],
    );
}

/// Adds an element to a set of our `inet` table; to a map with its value. The fields of both are as packets and the
/// kernel have them.
pub(crate) fn add_element(netns: &Path, set: &str, key: &[&[u8]], value: Option<&[&[u8]]>) {
    let data = |kind, fields: &[&[u8]]| nest(kind, &attribute(1, &joined(fields)));
    let element = [data(1, key), value.map(|value| data(2, value)).unwrap_or_default()].concat();
    let body = [string(OF_TABLE, RSWARM), string(2, set), nest(3, &nest(1, &element))].concat();
    change(netns, &[message(NEWSETELEM, CREATE, Family::Inet, &body)]);
}

/// Sends a transaction of `nft` anew: its messages as it sent them, also what begins and ends it.
pub(crate) fn replay(netns: &Path, recorded: &[u8]) {
    let kind = |message: &[u8]| u16::from_ne_bytes([message[4], message[5]]);
    let inner: Vec<Vec<u8>> = netlink::split(recorded)
        .filter(|message| kind(message) >> 8 == SUBSYSTEM >> 8)
        .map(<[u8]>::to_vec)
        .collect();
    assert!(!inner.is_empty(), "a transaction without messages");
    change(netns, &inner);
}

/// Has the kernel take all of the messages, or none.
#[track_caller]
fn change(netns: &Path, messages: &[Vec<u8>]) {
    let mut bytes = header(BATCH_BEGIN, REQUEST, 0, &[0, 0, 0, 10]);
    for (number, message) in (1u32..).zip(messages) {
        let mut message = message.clone();
        let flags = u16::from_ne_bytes([message[6], message[7]]) | ACK;
        message[6..8].copy_from_slice(&flags.to_ne_bytes());
        message[8..12].copy_from_slice(&number.to_ne_bytes());
        bytes.extend(message);
    }
    bytes.extend(header(BATCH_END, REQUEST, 0, &[0, 0, 0, 10]));
    if let Err(error) = netlink::exchange(netns, SockProtocol::NetlinkNetFilter, bytes, messages.len()) {
        panic!("the kernel takes no such change of nftables: {error}");
    }
}

/// Answers without their headers: family, three bytes, attributes.
fn dump(netns: &Path, kind: u16, family: u8, attributes: &[u8]) -> Vec<Vec<u8>> {
    let request = header(kind, REQUEST | DUMP, 0, &[&[family, 0, 0, 0], attributes].concat());
    let answers = netlink::exchange(netns, SockProtocol::NetlinkNetFilter, request, 1);
    let mut bodies: Vec<_> = answers
        .expect("a dump of nftables")
        .into_iter()
        .map(|answer| answer[HEADER_LEN..].to_vec())
        .collect();
    for body in &mut bodies {
        // Number of the generation, which goes up with every change of anything.
        body[2..4].fill(0);
    }
    bodies
}

fn header(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER_LEN + body.len()).expect("a short message");
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes
}

fn message(kind: u16, flags: u16, family: Family, attributes: &[u8]) -> Vec<u8> {
    header(kind, REQUEST | flags, 0, &[&[family as u8, 0, 0, 0], attributes].concat())
}

fn rule(family: Family, chain: &str, expressions: &[u8]) -> Vec<u8> {
    let body = [string(OF_TABLE, RSWARM), string(2, chain), nest(4, expressions)].concat();
    message(NEWRULE, CREATE | APPEND, family, &body)
}

fn expression(name: &str, parameters: &[u8]) -> Vec<u8> {
    nest(1, &[string(1, name), nest(2, parameters)].concat())
}

fn verdict(verdict: Verdict<'_>) -> Vec<u8> {
    let (code, chain): (i32, _) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
    };
    let said = [attribute(1, &code.to_be_bytes()), chain.map(|chain| string(2, chain)).unwrap_or_default()];
    let into_verdict = attribute(1, &0u32.to_be_bytes());
    expression("immediate", &[into_verdict, nest(2, &nest(2, &said.concat()))].concat())
}

/// Fields of a key or value: where there are several, each padded to four bytes.
fn joined(fields: &[&[u8]]) -> Vec<u8> {
    if let [only] = fields {
        return only.to_vec();
    }
    let mut all = Vec::new();
    for field in fields {
        all.extend_from_slice(field);
        all.resize(all.len().next_multiple_of(4), 0);
    }
    all
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).expect("a short attribute");
    let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nest(kind: u16, attributes: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, attributes)
}

fn string(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & !NESTED;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// An attribute of an answer; of a nest only behind four bytes.
fn find(body: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(body.get(4..)?).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

fn text(body: &[u8], kind: u16) -> String {
    let value = find(body, kind).unwrap_or_default();
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

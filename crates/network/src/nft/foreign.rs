//! What tables of others do with a packet of ours: read from the kernel, and followed rule by rule as far as the rules
//! are understood. A drop in any table is final, whatever another one accepts: no rule of ours helps against it, and
//! tables of others are not ours to change, so it is said which rule it is.
//!
//! Not followed: IPv6, the old xtables ([`old_tables`]), and packets before their address was translated.
//! Source: kernel include/uapi/linux/netfilter/nf_tables.h, xt_conntrack.h, xt_tcpudp.h.

use super::{
    DATA_VALUE, DATA_VERDICT, Family, GETCHAIN, GETRULE, GETSET, GETSETELEM, GETTABLE, GOTO, Hook,
    IPV4_FAMILY, LIST_ELEM, POLICY_DROP, TABLE, VERDICT_CHAIN, VERDICT_CODE, ifname,
};
use crate::netlink::{DUMP, Message, Socket, attribute, attributes, read_be32, read_str};
use std::{collections::BTreeMap, fmt, fs, io, net::Ipv4Addr};

/// Rules that are followed for one packet; what lies behind them is not known.
const RULES_MAX: usize = 20_000;
const DEPTH_MAX: usize = 16;
const TABLE_DORMANT: u32 = 1;
const SET_IS_INTERVAL: u32 = 4;
const SET_IS_CONCAT: u32 = 0x80;
const ELEMENT_ENDS_INTERVAL: u32 = 1;
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const CONTINUE: i32 = -1;
const JUMP: i32 = -3;
const RETURN: i32 = -5;
/// `NF_CT_STATE_BIT(IP_CT_NEW)`
const STATE_NEW: u32 = 8;
/// `IPS_DST_NAT`, `IPS_DST_NAT_DONE`
const STATUS_TRANSLATED: u32 = 0x120;
/// `XT_CONNTRACK_STATE_BIT(IP_CT_NEW)`, `XT_CONNTRACK_STATE_DNAT`
const XT_STATE_NEW: u16 = 8;
const XT_STATE_TRANSLATED: u16 = 128;
const SYN: u8 = 2;

/// The first packet of a flow of IPv4, as chains of one hook see it. `None`: not known, or any.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) hook: Hook,
    pub(crate) iif: Option<String>,
    /// Empty in the hook for this host.
    pub(crate) oif: Option<String>,
    pub(crate) protocol: Option<u8>,
    pub(crate) destination: Option<Ipv4Addr>,
    pub(crate) port: Option<u16>,
    /// Its destination was.
    pub(crate) translated: bool,
}

/// Where a packet ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stop {
    /// `ip filter`
    table: String,
    /// The chain of the hook.
    base: String,
    /// Chain, and handle as `nft -a list ruleset` shows it; `None`: the policy of the chain of the hook.
    rule: Option<(String, u64)>,
}

impl Stop {
    /// Returns the table and the chain of the hook, as `nft` takes them.
    pub(crate) fn base(&self) -> String {
        format!("{} {}", self.table, self.base)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, base, rule } = self;
        match rule {
            None => write!(f, "the policy of chain {base} of table {table}"),
            Some((chain, handle)) => {
                write!(f, "the rule with handle {handle} of chain {chain} of table {table}")
            }
        }
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    Passes,
    /// It depends on what is not known of it, or on rules that are not understood.
    MayStop(Stop),
    Stops(Stop),
}

/// Tells whether the old xtables filter this namespace's packets: what they do is not followed.
pub(crate) fn old_tables() -> bool {
    let names = fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    names.lines().any(|table| table == "filter")
}

#[derive(Debug, Clone, Default)]
struct Chain {
    /// Hook, priority, and whether it drops what no rule decides.
    base: Option<(u32, i32, bool)>,
    /// Handle and expressions.
    rules: Vec<(u64, Vec<u8>)>,
}

/// Family and name.
type Key = (u8, String);

/// The tables of others for IPv4, without those that no packet of these hooks meets.
#[derive(Debug)]
pub(crate) struct Foreign {
    tables: BTreeMap<Key, BTreeMap<String, Chain>>,
    /// `None` in tests: no set is read.
    socket: Option<Socket>,
    left: usize,
}

/// What may become of a packet in a rule or chain.
#[derive(Debug, Default)]
struct Ends {
    stop: Option<(String, u64)>,
    accepts: bool,
    /// It goes on behind the rule, or the chain.
    falls: bool,
    /// It leaves the chain.
    returns: bool,
}

impl Ends {
    fn falling() -> Self {
        Self { falls: true, ..Self::default() }
    }

    fn unknown() -> Self {
        Self { accepts: true, falls: true, ..Self::default() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Matches {
    Yes,
    No,
    Maybe,
}

impl From<bool> for Matches {
    fn from(matches: bool) -> Self {
        if matches { Self::Yes } else { Self::No }
    }
}

impl Foreign {
    /// Reads the tables of the calling thread's namespace. Without any: two messages.
    pub(crate) fn read() -> io::Result<Self> {
        let mut socket = Socket::netfilter()?;
        let mut dormant = Vec::new();
        for reply in socket.exchange(Message::new(GETTABLE, DUMP, &[0; 4]))? {
            let Some((family, table)) = split(&reply.body) else { continue };
            if attribute(table, 2).map_or(0, read_be32) & TABLE_DORMANT != 0 {
                dormant.push((family, attribute(table, 1).map(read_str).unwrap_or_default()));
            }
        }
        let mut tables: BTreeMap<Key, BTreeMap<String, Chain>> = BTreeMap::new();
        for reply in socket.exchange(Message::new(GETCHAIN, DUMP, &[0; 4]))? {
            let Some((family, chain)) = split(&reply.body) else { continue };
            let key = (family, attribute(chain, 1).map(read_str).unwrap_or_default());
            let ours = key == (Family::Inet as u8, TABLE.to_owned());
            if ours || ![IPV4_FAMILY, Family::Inet as u8].contains(&family) || dormant.contains(&key) {
                continue;
            }
            let filters = attribute(chain, 7).map(read_str).as_deref() == Some("filter");
            let base = attribute(chain, 4).filter(|_| filters).map(|hook| {
                let number = |kind| attribute(hook, kind).map_or(0, read_be32);
                let drops = attribute(chain, 5).map(read_be32) == Some(POLICY_DROP);
                (number(1), number(2).cast_signed(), drops)
            });
            let name = attribute(chain, 3).map(read_str).unwrap_or_default();
            tables.entry(key).or_default().insert(name, Chain { base, rules: Vec::new() });
        }
        let hooks = [Hook::Input as u32, Hook::Forward as u32];
        let meets = |chain: &Chain| chain.base.is_some_and(|(hook, ..)| hooks.contains(&hook));
        tables.retain(|_, chains| chains.values().any(meets));
        for ((family, table), chains) in &mut tables {
            let mut get = Message::new(GETRULE, DUMP, &[*family, 0, 0, 0]);
            get.str(1, table);
            for reply in socket.exchange(get)? {
                let Some((_, rule)) = split(&reply.body) else { continue };
                if attribute(rule, 1).map(read_str).as_ref() != Some(table) {
                    continue;
                }
                let handle = attribute(rule, 3).and_then(|h| h.try_into().ok()).map_or(0, u64::from_be_bytes);
                let expressions = attribute(rule, 4).unwrap_or_default().to_vec();
                let chain = attribute(rule, 2).map(read_str).unwrap_or_default();
                chains.entry(chain).or_default().rules.push((handle, expressions));
            }
        }
        Ok(Self { tables, socket: Some(socket), left: 0 })
    }

    /// Returns true if nobody else filters.
    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Follows a packet through all chains of its hook.
    pub(crate) fn fate(&mut self, packet: &Packet) -> Fate {
        self.left = RULES_MAX;
        let mut bases: Vec<(i32, Key, String, bool)> = Vec::new();
        for (key, chains) in &self.tables {
            for (name, chain) in chains {
                if let Some((hook, priority, drops)) = chain.base
                    && hook == packet.hook as u32
                {
                    bases.push((priority, key.clone(), name.clone(), drops));
                }
            }
        }
        bases.sort();
        let mut may = None;
        for (_, key, base, drops) in bases {
            let mut ends = self.chain(&key, &base, packet, 0);
            let by_rule = ends.stop.take().map(Some);
            let stop = by_rule.or_else(|| (ends.falls && drops).then_some(None));
            let Some(rule) = stop else { continue };
            let family = if key.0 == IPV4_FAMILY { "ip" } else { "inet" };
            let stop = Stop { table: format!("{family} {}", key.1), base, rule };
            if !ends.accepts && (drops || !ends.falls) {
                return Fate::Stops(stop);
            }
            may = may.or(Some(stop));
        }
        may.map_or(Fate::Passes, Fate::MayStop)
    }

    fn chain(&mut self, key: &Key, name: &str, packet: &Packet, depth: usize) -> Ends {
        let rules = self.tables.get(key).and_then(|chains| chains.get(name)).map(|c| c.rules.clone());
        let (Some(rules), true) = (rules, depth < DEPTH_MAX) else { return Ends::unknown() };
        let mut all = Ends::default();
        for (handle, expressions) in rules {
            let Some(left) = self.left.checked_sub(1) else { return Ends::unknown() };
            self.left = left;
            let ends = self.rule(key, (name, handle), &expressions, packet, depth);
            all.stop = all.stop.or(ends.stop);
            all.accepts |= ends.accepts;
            all.falls |= ends.returns;
            if !ends.falls {
                return all;
            }
        }
        Ends { falls: true, ..all }
    }

    fn rule(&mut self, key: &Key, at: (&str, u64), rule: &[u8], packet: &Packet, depth: usize) -> Ends {
        let mut registers = Registers::new();
        let mut maybe = false;
        let list = attributes(rule).filter(|(kind, _)| *kind == LIST_ELEM);
        for (_, expression) in list {
            let name = attribute(expression, 1).map(read_str).unwrap_or_default();
            let data = attribute(expression, 2).unwrap_or_default();
            let (matches, ends) = match name.as_str() {
                "immediate" => match attribute(data, 2).and_then(|d| attribute(d, DATA_VERDICT)) {
                    Some(verdict) => (Matches::Yes, self.verdict(key, at, verdict, packet, depth)),
                    None => {
                        let value =
                            attribute(data, 2).and_then(|d| attribute(d, DATA_VALUE)).unwrap_or_default();
                        registers.set(data, 1, value.iter().map(|byte| (*byte, 0xff)));
                        (Matches::Yes, None)
                    }
                },
                "lookup" => self.lookup(key, at, data, &mut registers, packet, depth),
                "reject" => (Matches::Yes, Some(stops(at))),
                "target" => (Matches::Yes, target(data, at)),
                "match" => (extension(data, packet), None),
                other => (registers.follow(other, data, packet), None),
            };
            match matches {
                Matches::Yes => {}
                Matches::No => return Ends::falling(),
                Matches::Maybe => maybe = true,
            }
            if let Some(mut ends) = ends {
                ends.falls |= maybe;
                return ends;
            }
        }
        Ends::falling()
    }

    /// `None`: on with the rule.
    fn verdict(
        &mut self,
        key: &Key,
        at: (&str, u64),
        verdict: &[u8],
        packet: &Packet,
        depth: usize,
    ) -> Option<Ends> {
        let code = attribute(verdict, VERDICT_CODE).map_or(0, read_be32).cast_signed();
        let chain = attribute(verdict, VERDICT_CHAIN).map(read_str).unwrap_or_default();
        Some(match code {
            CONTINUE => return None,
            DROP => stops(at),
            ACCEPT => Ends { accepts: true, ..Ends::default() },
            RETURN => Ends { returns: true, ..Ends::default() },
            JUMP => self.chain(key, &chain, packet, depth + 1),
            GOTO => {
                let ends = self.chain(key, &chain, packet, depth + 1);
                Ends { falls: false, returns: ends.falls, ..ends }
            }
            // What another program decides.
            _ => Ends { accepts: true, ..Ends::default() },
        })
    }

    fn lookup(
        &mut self,
        key: &Key,
        at: (&str, u64),
        data: &[u8],
        registers: &mut Registers,
        packet: &Packet,
        depth: usize,
    ) -> (Matches, Option<Ends>) {
        let set = attribute(data, 1).map(read_str).unwrap_or_default();
        let inverted = attribute(data, 5).map_or(0, read_be32) & 1 != 0;
        let to = attribute(data, 3).map(read_be32);
        let found = self.find(key, &set, |len| registers.known(data, 2, len));
        match (to, found) {
            (None, Some(found)) => (Matches::from(found.is_some() != inverted), None),
            (None, None) => (Matches::Maybe, None),
            (Some(_), Some(None)) => (Matches::No, None),
            (Some(0), Some(Some(element))) => {
                let verdict =
                    attribute(&element, 2).and_then(|d| attribute(d, DATA_VERDICT)).map(<[u8]>::to_vec);
                (Matches::Yes, verdict.and_then(|v| self.verdict(key, at, &v, packet, depth)))
            }
            // Any of its verdicts, or none.
            (Some(0), None) => (Matches::Maybe, Some(Ends::unknown())),
            (Some(_), _) => {
                registers.forget();
                (Matches::Yes, None)
            }
        }
    }

    /// Returns the element of a set that a value is in. `None`: it cannot be told.
    fn find(
        &mut self,
        (family, table): &Key,
        set: &str,
        value: impl FnOnce(usize) -> Option<Vec<u8>>,
    ) -> Option<Option<Vec<u8>>> {
        let socket = self.socket.as_mut()?;
        let about = |kind, flags, name| {
            let mut get = Message::new(kind, flags, &[*family, 0, 0, 0]);
            get.str(1, table).str(name, set);
            get
        };
        let described = socket.exchange(about(GETSET, 0, 2)).ok()?;
        let (_, described) = split(&described.first()?.body)?;
        let number = |kind| attribute(described, kind).map_or(0, read_be32);
        let (flags, len) = (number(3), usize::try_from(number(5)).ok()?);
        if flags & SET_IS_CONCAT != 0 && flags & SET_IS_INTERVAL != 0 {
            return None;
        }
        // Before the elements: of a list of a hundred thousand addresses we know that we cannot tell.
        let value = value(len)?;
        let mut best: Option<(Vec<u8>, Vec<u8>)> = None;
        for reply in socket.exchange(about(GETSETELEM, DUMP, 2)).ok()? {
            let (_, body) = split(&reply.body)?;
            for (_, element) in attributes(attribute(body, 3).unwrap_or_default()) {
                let Some(key) = attribute(element, 1).and_then(|k| attribute(k, DATA_VALUE)) else {
                    continue;
                };
                let before = if flags & SET_IS_INTERVAL != 0 { key <= &value[..] } else { key == &value[..] };
                // At one number an interval ends before the next begins.
                let ends = attribute(element, 3).map_or(0, read_be32) & ELEMENT_ENDS_INTERVAL != 0;
                let better = best.as_ref().is_none_or(|(k, _)| key > &k[..] || key == &k[..] && !ends);
                if before && better {
                    best = Some((key.to_vec(), element.to_vec()));
                }
            }
        }
        let ends = |element: &[u8]| attribute(element, 3).map_or(0, read_be32) & ELEMENT_ENDS_INTERVAL != 0;
        Some(best.map(|(_, element)| element).filter(|element| !ends(element)))
    }
}

fn split(body: &[u8]) -> Option<(u8, &[u8])> {
    Some((*body.first()?, body.get(4..)?))
}

fn stops((chain, handle): (&str, u64)) -> Ends {
    Ends { stop: Some((chain.to_owned(), handle)), ..Ends::default() }
}

/// What a target of xtables does; `None`: on with the rule.
fn target(data: &[u8], at: (&str, u64)) -> Option<Ends> {
    match attribute(data, 1).map(read_str).unwrap_or_default().as_str() {
        "REJECT" | "DROP" => Some(stops(at)),
        "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TCPMSS" | "CT" | "AUDIT" | "TRACE" => None,
        _ => Some(Ends::unknown()),
    }
}

/// Whether a packet has what a match of xtables asks for.
fn extension(data: &[u8], packet: &Packet) -> Matches {
    let name = attribute(data, 1).map(read_str).unwrap_or_default();
    let revision = attribute(data, 2).map_or(0, read_be32);
    let info = attribute(data, 3).unwrap_or_default();
    let short = |at: usize| info.get(at..at + 2).map(|b| u16::from_ne_bytes([b[0], b[1]]));
    match name.as_str() {
        "comment" => Matches::Yes,
        "conntrack" if revision >= 2 => {
            // Addresses, their masks, expiry, protocol and ports come first.
            let (Some(flags), Some(inverted), Some(states)) = (short(146), short(148), short(150)) else {
                return Matches::Maybe;
            };
            let has = if packet.translated { XT_STATE_NEW | XT_STATE_TRANSLATED } else { XT_STATE_NEW };
            match flags {
                1 => Matches::from((states & has != 0) != (inverted & 1 != 0)),
                _ => Matches::Maybe,
            }
        }
        "tcp" | "udp" => {
            let all_sources = (short(0), short(2)) == (Some(0), Some(u16::MAX));
            // Of TCP there are an option and flags before it, for which there are bits in it.
            let plain = match name.as_str() {
                "tcp" => info.get(8..12) == Some(&[0; 4]),
                _ => info.get(8) == Some(&0),
            };
            match (packet.port, short(4), short(6)) {
                (Some(port), Some(first), Some(last)) if !(first..=last).contains(&port) && plain => {
                    Matches::No
                }
                (Some(_), Some(_), Some(_)) if all_sources && plain => Matches::Yes,
                _ => Matches::Maybe,
            }
        }
        _ => Matches::Maybe,
    }
}

/// What is known of the bits of the registers: value and mask.
#[derive(Debug)]
struct Registers([(u8, u8); 64]);

impl Registers {
    fn new() -> Self {
        Self([(0, 0); 64])
    }

    fn forget(&mut self) {
        *self = Self::new();
    }

    /// Where the register begins that an attribute names.
    fn place(data: &[u8], kind: u16) -> usize {
        let number = attribute(data, kind).map_or(0, read_be32) as usize;
        match number {
            1..=4 => (number - 1) * 16,
            8..=23 => (number - 8) * 4,
            _ => 64,
        }
    }

    fn set(&mut self, data: &[u8], kind: u16, bytes: impl Iterator<Item = (u8, u8)>) {
        let place = Self::place(data, kind);
        let to = self.0.iter_mut().skip(place);
        to.zip(bytes).for_each(|(to, byte)| *to = byte);
    }

    fn at(&self, data: &[u8], kind: u16, len: usize) -> Option<&[(u8, u8)]> {
        let place = Self::place(data, kind);
        self.0.get(place..place + len)
    }

    /// Returns a value all bits of which are known.
    fn known(&self, data: &[u8], kind: u16, len: usize) -> Option<Vec<u8>> {
        self.at(data, kind, len)?.iter().map(|(value, mask)| (*mask == 0xff).then_some(*value)).collect()
    }

    /// Does what an expression does that decides nothing, or compares.
    fn follow(&mut self, name: &str, data: &[u8], packet: &Packet) -> Matches {
        let number = |kind| attribute(data, kind).map_or(0, read_be32);
        let size = |kind| usize::try_from(number(kind)).unwrap_or(0).min(64);
        let value = |kind| attribute(data, kind).and_then(|d| attribute(d, DATA_VALUE)).unwrap_or_default();
        match name {
            "meta" if attribute(data, 1).is_some() => self.set(data, 1, meta(number(2), packet).into_iter()),
            "ct" if attribute(data, 1).is_some() => self.set(data, 1, flow(number(2), packet).into_iter()),
            "payload" if attribute(data, 1).is_some() => {
                let header = header(number(2), packet);
                let bytes = header.into_iter().skip(size(3)).chain(std::iter::repeat((0, 0)));
                self.set(data, 1, bytes.take(size(4)));
            }
            "bitwise" if number(6) == 0 => {
                let Some(from) = self.at(data, 1, size(3)).map(<[_]>::to_vec) else { return Matches::Maybe };
                let masks = value(4).iter().zip(value(5));
                let bytes = from.into_iter().zip(masks);
                self.set(data, 2, bytes.map(|((v, known), (m, x))| ((v & m) ^ x, known | !m)));
            }
            "cmp" => {
                let wanted = value(3);
                let Some(have) = self.at(data, 1, wanted.len()) else { return Matches::Maybe };
                let differ = have.iter().zip(wanted).any(|((v, known), w)| (v ^ w) & known != 0);
                let all = have.iter().all(|(_, known)| *known == 0xff);
                let order = || have.iter().map(|(v, _)| v).cmp(wanted);
                return match number(2) {
                    0 if differ => Matches::No,
                    1 if differ => Matches::Yes,
                    _ if !all => Matches::Maybe,
                    0 => Matches::Yes,
                    1 => Matches::No,
                    2 => Matches::from(order().is_lt()),
                    3 => Matches::from(order().is_le()),
                    4 => Matches::from(order().is_gt()),
                    5 => Matches::from(order().is_ge()),
                    _ => Matches::Maybe,
                };
            }
            "range" => {
                let (first, last) = (value(3), value(4));
                let Some(have) = self.known(data, 1, first.len()) else { return Matches::Maybe };
                return Matches::from((first <= &have[..] && &have[..] <= last) == (number(2) == 0));
            }
            "meta" | "ct" | "payload" | "counter" | "log" | "notrack" | "objref" | "flow_offload" => {}
            "bitwise" | "byteorder" | "fib" | "numgen" | "hash" | "rt" | "exthdr" | "socket" | "tunnel"
            | "xfrm" => {
                self.forget();
            }
            _ => return Matches::Maybe,
        }
        Matches::Yes
    }
}

/// Bytes all of whose bits are known, or none.
fn bytes<const N: usize>(known: Option<[u8; N]>) -> Vec<(u8, u8)> {
    match known {
        Some(bytes) => bytes.map(|byte| (byte, 0xff)).into(),
        None => vec![(0, 0); N],
    }
}

fn meta(key: u32, packet: &Packet) -> Vec<(u8, u8)> {
    match key {
        1 => bytes(Some(0x0800_u16.to_be_bytes())),
        6 => bytes(packet.iif.as_deref().map(ifname)),
        7 => bytes(packet.oif.as_deref().map(ifname)),
        15 => bytes(Some([IPV4_FAMILY])),
        16 => bytes(packet.protocol.map(|protocol| [protocol])),
        _ => bytes::<16>(None),
    }
}

fn flow(key: u32, packet: &Packet) -> Vec<(u8, u8)> {
    match key {
        0 => bytes(Some(STATE_NEW.to_ne_bytes())),
        1 => bytes(Some([0])), // the way of the first packet
        2 => {
            let has = if packet.translated { STATUS_TRANSLATED } else { 0 };
            has.to_ne_bytes().into_iter().zip(STATUS_TRANSLATED.to_ne_bytes()).collect()
        }
        _ => bytes::<16>(None),
    }
}

/// The header of the network or the transport, as far as it is known.
fn header(base: u32, packet: &Packet) -> Vec<(u8, u8)> {
    match base {
        1 => {
            let mut header = vec![(0, 0); 20];
            header[9..10].copy_from_slice(&bytes(packet.protocol.map(|protocol| [protocol])));
            header[16..20].copy_from_slice(&bytes(packet.destination.map(|address| address.octets())));
            header
        }
        2 => {
            let mut header = vec![(0, 0); 20];
            header[2..4].copy_from_slice(&bytes(packet.port.map(u16::to_be_bytes)));
            header[13] = (SYN, if packet.protocol == Some(6) { 0xff } else { 0 });
            header
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{Rule, field};

    const TCP: u8 = 6;

    fn table(policy_drops: bool, chains: &[(&str, Vec<Rule>)]) -> Foreign {
        let rules = |rules: &[Rule]| {
            rules.iter().zip(1..).map(|(rule, handle)| (handle, rule.expressions().to_vec())).collect()
        };
        let chain = |(name, listed): &(&str, Vec<Rule>)| {
            let base = (*name == "FORWARD").then_some((Hook::Forward as u32, 0, policy_drops));
            ((*name).to_owned(), Chain { base, rules: rules(listed) })
        };
        let key = (IPV4_FAMILY, "filter".to_owned());
        let tables = [(key, chains.iter().map(chain).collect())].into();
        Foreign { tables, socket: None, left: 0 }
    }

    /// To port 8080, led to 10.0.0.2:80 behind link `g-1`.
    fn packet() -> Packet {
        Packet {
            hook: Hook::Forward,
            iif: Some("eth0".into()),
            oif: Some("g-1".into()),
            protocol: Some(TCP),
            destination: Some([10, 0, 0, 2].into()),
            port: Some(80),
            translated: true,
        }
    }

    #[track_caller]
    fn fate(policy_drops: bool, rules: Vec<Rule>) -> Fate {
        let more = ("user", vec![Rule::new().oif("docker0").accept(), Rule::new().iif("eth0").drop()]);
        table(policy_drops, &[("FORWARD", rules), more]).fate(&packet())
    }

    fn stop(rule: Option<(&str, u64)>) -> Stop {
        let rule = rule.map(|(chain, handle)| (chain.to_owned(), handle));
        Stop { table: "ip filter".into(), base: "FORWARD".into(), rule }
    }

    #[test]
    fn a_policy_stops_what_no_rule_accepts() {
        let new = Rule::new;
        let by_policy = || Fate::Stops(stop(None));
        assert_eq!(fate(true, vec![]), by_policy());
        assert_eq!(fate(false, vec![]), Fate::Passes);
        for no in [
            new().established().accept(),
            new().not_translated().accept(),
            new().oif("docker0").accept(),
            new().iif("docker0").not_oif("docker0").accept(),
            new().oif("g-*").l4(17).accept(),
            new().l4(TCP).port(443).accept(),
            new().destination([10, 0, 0, 3].into()).accept(),
        ] {
            assert_eq!(fate(true, vec![no.clone()]), by_policy(), "{no}");
        }
        for yes in [
            new().accept(),
            new().new_flow().accept(),
            new().translated().accept(),
            new().oif("g-*").accept(),
            new().iif("eth0").oif("g-1").l4(TCP).port(80).accept(),
            new().destination([10, 0, 0, 2].into()).accept(),
            new().not_oif("docker0").accept(),
        ] {
            assert_eq!(fate(true, vec![yes.clone()]), Fate::Passes, "{yes}");
        }
    }

    #[test]
    fn a_rule_that_stops_is_named_with_its_chain() {
        let new = Rule::new;
        assert_eq!(fate(false, vec![new().drop()]), Fate::Stops(stop(Some(("FORWARD", 1)))));
        assert_eq!(
            fate(false, vec![new().l4(17).drop(), new().tcp_reset()]),
            Fate::Stops(stop(Some(("FORWARD", 2))))
        );
        assert_eq!(fate(false, vec![new().jump("user")]), Fate::Stops(stop(Some(("user", 2)))));
        assert_eq!(fate(false, vec![new().accept(), new().drop()]), Fate::Passes);
        let named = stop(Some(("user", 2))).to_string();
        assert_eq!(named, "the rule with handle 2 of chain user of table ip filter");
    }

    #[test]
    fn matches_of_xtables_are_read() {
        let asked = |name: &str, revision, info: &[u8]| {
            let mut data = Message::fragment();
            data.str(1, name).be32(2, revision).raw(3, info);
            extension(data.as_bytes(), &packet())
        };
        let states = |flags: u16, inverted: u16, states: u16| {
            let mut info = vec![0; 160];
            for (at, value) in [(146, flags), (148, inverted), (150, states)] {
                info[at..at + 2].copy_from_slice(&value.to_ne_bytes());
            }
            info
        };
        // -m conntrack --ctstate RELATED,ESTABLISHED; NEW; DNAT; ! NEW; with an address too; an old revision
        assert_eq!(asked("conntrack", 3, &states(1, 0, 2 | 4)), Matches::No);
        assert_eq!(asked("conntrack", 3, &states(1, 0, 8)), Matches::Yes);
        assert_eq!(asked("conntrack", 2, &states(1, 0, 128)), Matches::Yes);
        assert_eq!(asked("conntrack", 3, &states(1, 1, 8)), Matches::No);
        assert_eq!(asked("conntrack", 3, &states(1 | 4, 0, 8)), Matches::Maybe);
        assert_eq!(asked("conntrack", 1, &states(1, 0, 8)), Matches::Maybe);
        let ports = |source: u16, first: u16, last: u16, inverted: u8| {
            let words = [source, u16::MAX, first, last].map(u16::to_ne_bytes);
            [words.concat(), vec![0, 0, 0, inverted]].concat()
        };
        assert_eq!(asked("tcp", 0, &ports(0, 80, 80, 0)), Matches::Yes);
        assert_eq!(asked("tcp", 0, &ports(0, 443, 450, 0)), Matches::No);
        assert_eq!(asked("tcp", 0, &ports(1024, 80, 80, 0)), Matches::Maybe);
        assert_eq!(asked("tcp", 0, &ports(0, 80, 80, 2)), Matches::Maybe);
        assert_eq!(asked("comment", 0, &[]), Matches::Yes);
        assert_eq!(asked("recent", 0, &[]), Matches::Maybe);
        assert_eq!(asked("conntrack", 3, &[]), Matches::Maybe, "too short");
    }

    #[test]
    fn what_is_not_known_is_not_sworn_to() {
        let new = Rule::new;
        // From whom it comes, and what a set holds.
        for maybe in [new().source_loopback(), new().in_set(&[field::Source], "friends")] {
            assert_eq!(fate(true, vec![maybe.clone().accept()]), Fate::MayStop(stop(None)), "{maybe}");
            let dropped = Fate::MayStop(stop(Some(("FORWARD", 1))));
            assert_eq!(fate(false, vec![maybe.clone().drop()]), dropped, "{maybe}");
            assert_eq!(
                fate(true, vec![maybe.drop()]),
                Fate::Stops(stop(Some(("FORWARD", 1)))),
                "one way or another"
            );
        }
        // Chains that call each other without end.
        let mut round = table(true, &[("FORWARD", vec![new().jump("FORWARD")])]);
        assert_eq!(round.fate(&packet()), Fate::MayStop(stop(None)));
    }
}

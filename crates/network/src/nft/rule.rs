//! Rules, written as a chain of words: `Rule::new().iif("rs-ing").drop()`.
//!
//! Each word appends expressions and its own spelling, which becomes the rule's text in error messages.

use crate::netlink::Message;
use std::{fmt, net::Ipv4Addr};

const REG_1: u32 = 1;
/// The first four bytes of register 1 and those after it.
const REG_32: u32 = 8;
const ACCEPT: i32 = 1;
const DROP: i32 = 0;
const JUMP: i32 = -3;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const EQ: u32 = 0;
const NEQ: u32 = 1;

/// A field that can be part of a lookup key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Field {
    Iif,
    Oif,
    EtherSource,
    /// Who an ARP message says that its sender is.
    ArpSenderEther,
    ArpSender,
    Source,
    /// [`Field::Source`] and the same of IPv6, in a rule that made sure of the version by [`Rule::protocol`] or
    /// [`Rule::of_ipv6`].
    FrameSource,
    FrameSource6,
    /// The address that a neighbour advertisement or solicitation is about.
    NeighbourTarget,
    Destination,
    /// Of IPv6.
    Destination6,
    L4Proto,
    DestinationPort,
    /// `numgen random mod n`
    Random(u32),
    /// The /24 of the destination.
    DestinationNet24,
}

/// Short names for [`Field`].
pub(crate) mod field {
    pub(crate) use super::Field::*;
}

/// One rule. Equal when its fingerprint is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rule {
    words: String,
    expressions: Vec<u8>,
    fingerprint: u64,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}
impl Eq for Rule {}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words.trim_start())
    }
}

impl Rule {
    pub(crate) fn new() -> Self {
        Self { fingerprint: 0xcbf2_9ce4_8422_2325, ..Self::default() }
    }

    fn say(mut self, words: impl fmt::Display) -> Self {
        self.words.push(' ');
        self.words.push_str(&words.to_string());
        self
    }

    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Message)) -> Self {
        let mut m = Message::fragment();
        m.nest(super::LIST_ELEM, |m| {
            m.str(1, name).nest(2, fill);
        });
        self.expressions.extend_from_slice(m.as_bytes());
        self.fingerprint = m
            .as_bytes()
            .iter()
            .fold(self.fingerprint, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
        self
    }

    /// Reads a rule back from its user data: only the fingerprint.
    pub(super) fn read(user_data: &[u8]) -> Self {
        let text = user_data.get(2..).map(crate::netlink::read_str).unwrap_or_default();
        let fingerprint = text.strip_prefix("rs:").and_then(|hex| u64::from_str_radix(hex, 16).ok());
        Self { fingerprint: fingerprint.unwrap_or(0), ..Self::default() }
    }

    pub(super) fn write(&self, m: &mut Message) {
        let comment = format!("rs:{:016x}\0", self.fingerprint);
        let mut user_data = vec![0, u8::try_from(comment.len()).expect("20 bytes")];
        user_data.extend_from_slice(comment.as_bytes());
        m.nest(4, |m| {
            m.plain(&self.expressions);
        })
        .raw(7, &user_data);
    }

    fn meta(self, key: u32, register: u32) -> Self {
        self.expression("meta", |m| {
            m.be32(1, register).be32(2, key);
        })
    }

    fn ct(self, key: u32) -> Self {
        self.expression("ct", |m| {
            m.be32(1, REG_1).be32(2, key);
        })
    }

    /// Bases: 0 link, 1 network, 2 transport header.
    fn payload(self, base: u32, offset: u32, len: u32, register: u32) -> Self {
        self.expression("payload", |m| {
            m.be32(1, register).be32(2, base).be32(3, offset).be32(4, len);
        })
    }

    fn cmp(self, operator: u32, value: &[u8]) -> Self {
        self.expression("cmp", |m| {
            m.be32(1, REG_1).be32(2, operator).nest(3, |m| {
                m.raw(super::DATA_VALUE, value);
            });
        })
    }

    fn mask(self, register: u32, mask: &[u8]) -> Self {
        let len = u32::try_from(mask.len()).expect("4 bytes");
        self.expression("bitwise", |m| {
            m.be32(1, register).be32(2, register).be32(3, len);
            m.nest(4, |m| {
                m.raw(super::DATA_VALUE, mask);
            });
            m.nest(5, |m| {
                m.raw(super::DATA_VALUE, &vec![0; mask.len()]);
            });
        })
    }

    fn immediate(self, register: u32, value: &[u8]) -> Self {
        self.expression("immediate", |m| {
            m.be32(1, register).nest(2, |m| {
                m.raw(super::DATA_VALUE, value);
            });
        })
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        self.expression("immediate", |m| {
            m.be32(1, 0).nest(2, |m| {
                m.nest(super::DATA_VERDICT, |m| {
                    m.be32(super::VERDICT_CODE, code.cast_unsigned());
                    if let Some(chain) = chain {
                        m.str(super::VERDICT_CHAIN, chain);
                    }
                });
            });
        })
    }

    /// As the kernel takes and gives them.
    #[cfg(test)]
    pub(super) fn expressions(&self) -> &[u8] {
        &self.expressions
    }

    /// Read back from a table: made by this encoder.
    pub(super) fn is_ours(&self) -> bool {
        self.fingerprint != 0
    }

    fn interface(self, key: u32, operator: u32, pattern: &str) -> Self {
        // `g-*`: only the first bytes are compared.
        match pattern.strip_suffix('*') {
            Some(prefix) => self.meta(key, REG_1).cmp(operator, prefix.as_bytes()),
            None => self.meta(key, REG_1).cmp(operator, &super::ifname(pattern)),
        }
    }

    pub(crate) fn iif(self, pattern: &str) -> Self {
        self.say(format_args!("iifname {pattern}")).interface(6, EQ, pattern)
    }

    pub(crate) fn not_iif(self, pattern: &str) -> Self {
        self.say(format_args!("iifname != {pattern}")).interface(6, NEQ, pattern)
    }

    pub(crate) fn oif(self, pattern: &str) -> Self {
        self.say(format_args!("oifname {pattern}")).interface(7, EQ, pattern)
    }

    pub(crate) fn not_oif(self, pattern: &str) -> Self {
        self.say(format_args!("oifname != {pattern}")).interface(7, NEQ, pattern)
    }

    fn ipv4(self) -> Self {
        self.meta(15, REG_1).cmp(EQ, &[NFPROTO_IPV4])
    }

    fn ipv6(self) -> Self {
        self.meta(15, REG_1).cmp(EQ, &[NFPROTO_IPV6])
    }

    pub(crate) fn of_ipv4(self) -> Self {
        self.say("meta nfproto ipv4").ipv4()
    }

    pub(crate) fn of_ipv6(self) -> Self {
        self.say("meta nfproto ipv6").ipv6()
    }

    pub(crate) fn destination_loopback6(self) -> Self {
        let loopback = std::net::Ipv6Addr::LOCALHOST;
        self.say("ip6 daddr ::1").ipv6().payload(1, 24, 16, REG_1).cmp(EQ, &loopback.octets())
    }

    pub(crate) fn source_loopback(self) -> Self {
        self.say("ip saddr 127.0.0.0/8").ipv4().payload(1, 12, 1, REG_1).cmp(EQ, &[127])
    }

    pub(crate) fn destination_loopback(self) -> Self {
        self.say("ip daddr 127.0.0.0/8").ipv4().payload(1, 16, 1, REG_1).cmp(EQ, &[127])
    }

    /// `prefix` of whole bytes.
    pub(crate) fn source_in(self, net: Ipv4Addr, bytes: usize) -> Self {
        let len = u32::try_from(bytes).expect("at most 4");
        self.say(format_args!("ip saddr {net}/{}", bytes * 8))
            .ipv4()
            .payload(1, 12, len, REG_1)
            .cmp(EQ, &net.octets()[..bytes])
    }

    pub(crate) fn destination(self, address: Ipv4Addr) -> Self {
        self.say(format_args!("ip daddr {address}"))
            .ipv4()
            .payload(1, 16, 4, REG_1)
            .cmp(EQ, &address.octets())
    }

    /// The destination is an address of this host.
    pub(crate) fn for_this_host(self) -> Self {
        self.say("fib daddr type local")
            .expression("fib", |m| {
                m.be32(1, REG_1).be32(2, 3).be32(3, 2);
            })
            .cmp(EQ, &2u32.to_ne_bytes())
    }

    /// This host would not send to the source by the way the packet came in.
    pub(crate) fn off_route(self) -> Self {
        self.say("fib saddr . iif oif missing")
            .expression("fib", |m| {
                m.be32(1, REG_1).be32(2, 1).be32(3, 1 | 8);
            })
            .cmp(EQ, &0u32.to_ne_bytes())
    }

    /// What a frame carries: 0x0800 IPv4, 0x0806 ARP, 0x86dd IPv6.
    pub(crate) fn protocol(self, ethertype: u16) -> Self {
        self.say(format_args!("meta protocol {ethertype:#06x}"))
            .meta(1, REG_1)
            .cmp(EQ, &ethertype.to_be_bytes())
    }

    /// ICMP 1 or 58 of a type.
    pub(crate) fn icmp(self, l4: u8, kind: u8) -> Self {
        self.l4(l4).say(format_args!("icmp type {kind}")).payload(2, 0, 1, REG_1).cmp(EQ, &[kind])
    }

    /// The source is `::`.
    pub(crate) fn frame_source_unspecified6(self) -> Self {
        self.say("ip6 saddr ::").payload(1, 8, 16, REG_1).cmp(EQ, &[0; 16])
    }

    pub(crate) fn source_port(self, port: u16) -> Self {
        self.say(format_args!("th sport {port}")).payload(2, 0, 2, REG_1).cmp(EQ, &port.to_be_bytes())
    }

    /// TCP 6, UDP 17, SCTP 132.
    pub(crate) fn l4(self, protocol: u8) -> Self {
        self.say(format_args!("meta l4proto {protocol}")).meta(16, REG_1).cmp(EQ, &[protocol])
    }

    pub(crate) fn port(self, port: u16) -> Self {
        self.say(format_args!("th dport {port}")).payload(2, 2, 2, REG_1).cmp(EQ, &port.to_be_bytes())
    }

    fn ct_bits(self, key: u32, bits: u32, operator: u32) -> Self {
        self.ct(key).mask(REG_1, &bits.to_ne_bytes()).cmp(operator, &0u32.to_ne_bytes())
    }

    pub(crate) fn established(self) -> Self {
        self.say("ct state established,related").ct_bits(0, 2 | 4, NEQ)
    }

    pub(crate) fn not_established(self) -> Self {
        self.say("ct state != established,related").ct_bits(0, 2 | 4, EQ)
    }

    pub(crate) fn new_flow(self) -> Self {
        self.say("ct state new").ct_bits(0, 8, NEQ)
    }

    pub(crate) fn translated(self) -> Self {
        self.say("ct status & dnat != 0").ct_bits(2, 0x20, NEQ)
    }

    pub(crate) fn not_translated(self) -> Self {
        self.say("ct status & dnat == 0").ct_bits(2, 0x20, EQ)
    }

    pub(crate) fn reply(self) -> Self {
        self.say("ct direction reply").ct(1).cmp(EQ, &[1])
    }

    pub(crate) fn ct_mark(self, bits: u32) -> Self {
        self.say(format_args!("ct mark & {bits:#x} != 0")).ct_bits(3, bits, NEQ)
    }

    pub(crate) fn mark(self, bits: u32) -> Self {
        self.say(format_args!("meta mark & {bits:#x} != 0"))
            .meta(3, REG_1)
            .mask(REG_1, &bits.to_ne_bytes())
            .cmp(NEQ, &0u32.to_ne_bytes())
    }

    pub(crate) fn clear_mark(self) -> Self {
        self.say("meta mark set 0").immediate(REG_1, &0u32.to_ne_bytes()).set_meta_mark()
    }

    pub(crate) fn set_ct_mark(self, mark: u32) -> Self {
        self.say(format_args!("ct mark set {mark:#x}")).immediate(REG_1, &mark.to_ne_bytes()).expression(
            "ct",
            |m| {
                m.be32(2, 3).be32(4, REG_1);
            },
        )
    }

    pub(crate) fn mark_from_ct(self) -> Self {
        self.say("meta mark set ct mark").ct(3).set_meta_mark()
    }

    fn set_meta_mark(self) -> Self {
        self.expression("meta", |m| {
            m.be32(2, 3).be32(3, REG_1);
        })
    }

    /// SYN without RST.
    pub(crate) fn syn(self) -> Self {
        self.say("tcp flags & (syn|rst) == syn")
            .meta(16, REG_1)
            .cmp(EQ, &[6])
            .payload(2, 13, 1, REG_1)
            .mask(REG_1, &[6])
            .cmp(EQ, &[2])
    }

    pub(crate) fn clamp_mss(self) -> Self {
        self.say("tcp option maxseg size set rt mtu")
            .expression("rt", |m| {
                m.be32(1, REG_1).be32(2, 3);
            })
            .expression("byteorder", |m| {
                m.be32(1, REG_1).be32(2, REG_1).be32(3, 1).be32(4, 2).be32(5, 2);
            })
            .expression("exthdr", |m| {
                m.u8(2, 2).be32(3, 2).be32(4, 2).be32(6, 1).be32(7, REG_1);
            })
    }

    /// Loads fields side by side, from register 1 on.
    fn load(mut self, fields: &[Field]) -> Self {
        let mut register = REG_32;
        for field in fields {
            let words = match field {
                Field::Iif
                | Field::Oif
                | Field::Destination6
                | Field::FrameSource6
                | Field::NeighbourTarget => 4,
                Field::EtherSource | Field::ArpSenderEther => 2,
                _ => 1,
            };
            self = match field {
                Field::Iif => self.meta(6, register),
                Field::Oif => self.meta(7, register),
                Field::EtherSource => self.payload(0, 6, 6, register),
                Field::ArpSenderEther => self.payload(1, 8, 6, register),
                Field::ArpSender => self.payload(1, 14, 4, register),
                Field::Source | Field::FrameSource => self.payload(1, 12, 4, register),
                Field::FrameSource6 => self.payload(1, 8, 16, register),
                Field::NeighbourTarget => self.payload(2, 8, 16, register),
                Field::Destination => self.payload(1, 16, 4, register),
                Field::Destination6 => self.payload(1, 24, 16, register),
                Field::DestinationNet24 => {
                    self.payload(1, 16, 4, register).mask(register, &[255, 255, 255, 0])
                }
                Field::L4Proto => self.meta(16, register),
                Field::DestinationPort => self.payload(2, 2, 2, register),
                Field::Random(modulus) => self.expression("numgen", |m| {
                    m.be32(1, register).be32(2, *modulus).be32(3, 1);
                }),
            };
            register += words;
        }
        self
    }

    /// Loads fields into a key; those of an IP version only after making sure that it is this one.
    fn key(self, fields: &[Field], set: &str) -> Self {
        let needs_ip =
            fields.iter().any(|f| matches!(f, Field::Source | Field::Destination | Field::DestinationNet24));
        let rule = self.say(format_args!("{fields:?} @{set}"));
        if needs_ip {
            rule.ipv4().load(fields)
        } else if fields.iter().any(|f| matches!(f, Field::Destination6)) {
            rule.ipv6().load(fields)
        } else {
            rule.load(fields)
        }
    }

    fn lookup(self, set: &str, destination: Option<u32>, inverted: bool) -> Self {
        self.expression("lookup", |m| {
            m.str(1, set).be32(2, REG_1);
            if let Some(register) = destination {
                m.be32(3, register);
            }
            if inverted {
                m.be32(5, 1);
            }
        })
    }

    pub(crate) fn in_set(self, fields: &[Field], set: &str) -> Self {
        self.key(fields, set).lookup(set, None, false)
    }

    pub(crate) fn not_in_set(self, fields: &[Field], set: &str) -> Self {
        self.say("not").key(fields, set).lookup(set, None, true)
    }

    pub(crate) fn verdict_map(self, fields: &[Field], map: &str) -> Self {
        self.say("vmap").key(fields, map).lookup(map, Some(0), false)
    }

    pub(crate) fn ct_mark_from_map(self, fields: &[Field], map: &str) -> Self {
        self.say("ct mark set").key(fields, map).lookup(map, Some(REG_1), false).expression("ct", |m| {
            m.be32(2, 3).be32(4, REG_1);
        })
    }

    /// Tracks what is asked by this way apart from what is asked by others: two flows may look alike. Answers are found
    /// all the same, as those have one way; so the kernel has the second of two that look alike answered to another port.
    /// The zone's number is the end of the sender's link address. *Source:* nft(8), "ct original zone".
    pub(crate) fn ct_original_zone_of_sender(self) -> Self {
        self.say("ct original zone set ether saddr & ff:ff").payload(0, 10, 2, REG_1).expression("ct", |m| {
            // `NFT_CT_ZONE`, `IP_CT_DIR_ORIGINAL`
            m.be32(2, 17).raw(3, &[0]).be32(4, REG_1);
        })
    }

    /// `dnat` to the address in the map.
    pub(crate) fn dnat_to_address_of(self, fields: &[Field], map: &str) -> Self {
        self.dnat_by(fields, map).nat(1, NFPROTO_IPV4, None)
    }

    /// `dnat` to address and port in the map.
    pub(crate) fn dnat_to_endpoint_of(self, fields: &[Field], map: &str) -> Self {
        self.dnat_by(fields, map).nat(1, NFPROTO_IPV4, Some(REG_32 + 1))
    }

    /// `dnat` to IPv6 address and port in the map.
    pub(crate) fn dnat_to_endpoint6_of(self, fields: &[Field], map: &str) -> Self {
        self.dnat_by(fields, map).nat(1, NFPROTO_IPV6, Some(REG_32 + 4))
    }

    fn dnat_by(self, fields: &[Field], map: &str) -> Self {
        self.say("dnat to").key(fields, map).lookup(map, Some(REG_1), false)
    }

    pub(crate) fn dnat(self, address: Ipv4Addr, port: u16) -> Self {
        self.say(format_args!("dnat to {address}:{port}"))
            .immediate(REG_32, &address.octets())
            .immediate(REG_32 + 1, &port.to_be_bytes())
            .nat(1, NFPROTO_IPV4, Some(REG_32 + 1))
    }

    pub(crate) fn snat(self, address: Ipv4Addr) -> Self {
        self.say(format_args!("snat to {address}")).immediate(REG_32, &address.octets()).nat(
            0,
            NFPROTO_IPV4,
            None,
        )
    }

    /// Kinds: 0 source, 1 destination. Address in register 1, port in the register behind it.
    fn nat(self, kind: u32, family: u8, port: Option<u32>) -> Self {
        self.expression("nat", |m| {
            m.be32(1, kind).be32(2, u32::from(family)).be32(3, REG_1);
            if let Some(register) = port {
                m.be32(5, register).be32(7, 2);
            }
        })
    }

    pub(crate) fn masquerade(self) -> Self {
        self.say("masquerade").expression("masq", |_| {})
    }

    pub(crate) fn notrack(self) -> Self {
        self.say("notrack").expression("notrack", |_| {})
    }

    pub(crate) fn tcp_reset(self) -> Self {
        self.say("reject with tcp reset").expression("reject", |m| {
            m.be32(1, 1).u8(2, 0);
        })
    }

    pub(crate) fn reject_host_unreachable(self) -> Self {
        self.say("reject with icmp host-unreachable").expression("reject", |m| {
            m.be32(1, 0).u8(2, 1);
        })
    }

    pub(crate) fn accept(self) -> Self {
        self.say("accept").verdict(ACCEPT, None)
    }

    pub(crate) fn drop(self) -> Self {
        self.say("drop").verdict(DROP, None)
    }

    pub(crate) fn jump(self, chain: &str) -> Self {
        self.say(format_args!("jump {chain}")).verdict(JUMP, Some(chain))
    }
}

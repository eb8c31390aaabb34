//! Log drivers: what a container's `LogConfig` means. Whatever the driver (but for `none`), lines are kept in a file of
//! `json-file`, so `docker logs` works; journald and syslog get them besides. *Source:* Docker docs, "Configure logging
//! drivers", "Dual logging".

use crate::{
    ask::config::LogConfig,
    error::{Error, Result},
    seen::container::Container,
};
use runtime::{LogService, LogTarget, SyslogAddress};
use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    path::Path,
};

/// As `docker info` shows them.
pub const DRIVERS: [&str; 5] = ["json-file", "local", "none", "journald", "syslog"];

const LOG_BYTES: u64 = 10 << 20;
const LOG_FILES: u32 = 3;
/// Where journald listens. Source: systemd-journald.service(8).
const JOURNAL: &str = "/run/systemd/journal/socket";
/// Where syslog listens. Source: syslog(3).
const SYSLOG: &str = "/dev/log";
/// Source: RFC 5424, 6.2.1; syslog(3).
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "",
    "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];
const FACILITY: u32 = 3;
/// What every driver that keeps a file takes.
const COMMON: [&str; 7] = ["labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"];
const FILE: [&str; 3] = ["max-size", "max-file", "compress"];
/// *Limit* of the files of one log: each of them is renamed whenever one is full.
const FILES_MAX: u32 = 1000;
const CACHE: [&str; 4] = ["cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"];
const FORMATS: [&str; 4] = ["", "rfc3164", "rfc5424", "rfc5424micro"];

/// Reads Docker's `10m`, `1GB`, `512k`, `100`. *Unit:* bytes.
pub fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let number = lower.trim_end_matches('b').trim_end_matches(['k', 'm', 'g']);
    let unit = match lower.trim_end_matches('b').bytes().last()? {
        b'k' => 1 << 10,
        b'm' => 1 << 20,
        b'g' => 1 << 30,
        _ => 1,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// What a log configuration asks for, besides what depends on the container.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    /// `None` = no end.
    max_size_bytes: Option<u64>,
    max_files: u32,
    service: Service,
}

#[derive(Debug, PartialEq, Eq)]
enum Service {
    /// The file is all.
    None,
    Journald,
    Syslog {
        to: Option<String>,
        facility: u32,
        format: String,
    },
}

/// Judges a log configuration.
///
/// # Errors
/// `InvalidParameter` for a driver or option that does not exist, or more files than are kept.
pub(crate) fn check(log: &LogConfig) -> Result<()> {
    match read(log)? {
        Some(Asked { max_files, .. }) if max_files > FILES_MAX => Err(Error::invalid(format!(
            "max-file cannot be more than {FILES_MAX}; hint: raise max-size instead"
        ))),
        _ => Ok(()),
    }
}

/// *Source:* moby `daemon/logger/factory.go`, `ValidateLogOpts`.
fn judge_mode(mode: &str, buffer: Option<&str>) -> Result<()> {
    if !["", "blocking", "non-blocking"].contains(&mode) {
        return Err(Error::invalid(format!("logger: logging mode not supported: {mode}")));
    }
    match buffer {
        Some(_) if mode != "non-blocking" => {
            Err(Error::invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking'"))
        }
        Some(text) if size(text).is_none() => {
            Err(Error::invalid(format!("error parsing option max-buffer-size: invalid size: '{text}'")))
        }
        _ => Ok(()),
    }
}

/// `None` when nothing is kept.
fn read(log: &LogConfig) -> Result<Option<Asked>> {
    let option = |key: &str| log.options.get(key).map(String::as_str);
    let (driver, more): (&str, &[&[&str]]) = match log.driver.as_str() {
        "none" => return Ok(None),
        "" | "json-file" => ("json-file", &[&FILE]),
        "local" => ("local", &[&FILE]),
        "journald" => ("journald", &[&CACHE]),
        "syslog" => ("syslog", &[&CACHE, &["syslog-address", "syslog-facility", "syslog-format"]]),
        other => return Err(Error::invalid(format!("logger: no log driver named '{other}' is registered"))),
    };
    let known = |key: &&String| {
        let key = key.as_str();
        COMMON.contains(&key) || more.iter().any(|keys| keys.contains(&key))
    };
    if let Some(text) = option("tag") {
        template::Template::parse(text, &template::docker::Docker)
            .map_err(|error| Error::invalid(format!("log option tag {text:?}: {error}")))?;
    }
    if let Some(unknown) = log.options.keys().find(|key| !known(key)) {
        return Err(Error::invalid(format!("unknown log opt '{unknown}' for {driver} log driver")));
    }
    judge_mode(option("mode").unwrap_or_default(), option("max-buffer-size"))?;
    let max_size_bytes = match option("max-size").or_else(|| option("cache-max-size")) {
        None => Some(LOG_BYTES),
        Some("-1") => None,
        Some(text) => Some(size(text).ok_or_else(|| Error::invalid(format!("invalid size: '{text}'")))?),
    };
    let max_files = match option("max-file").or_else(|| option("cache-max-file")) {
        None => LOG_FILES,
        Some(text) => text
            .parse()
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| Error::invalid("max-file cannot be less than 1"))?,
    };
    let service = match driver {
        "journald" => Service::Journald,
        "syslog" => Service::Syslog {
            to: option("syslog-address").map(str::to_owned),
            facility: facility(option("syslog-facility").unwrap_or_default())?,
            format: option("syslog-format").filter(|format| FORMATS.contains(format)).map_or_else(
                || match option("syslog-format") {
                    None => Ok(String::new()),
                    Some(other) => Err(Error::invalid(format!("Invalid syslog format: {other}"))),
                },
                |format| Ok(format.to_owned()),
            )?,
        },
        _ => Service::None,
    };
    if let Service::Syslog { to: Some(address), .. } = &service {
        syslog_address(address)?;
    }
    Ok(Some(Asked { max_size_bytes, max_files, service }))
}

fn facility(text: &str) -> Result<u32> {
    if text.is_empty() {
        return Ok(FACILITY);
    }
    let named = FACILITIES.iter().position(|name| *name == text).and_then(|n| u32::try_from(n).ok());
    named
        .or_else(|| text.parse().ok().filter(|n| *n < 24))
        .ok_or_else(|| Error::invalid(format!("invalid syslog facility: {text}")))
}

/// Reads `udp://HOST[:PORT]`, `unix:///PATH`, `unixgram:///PATH`. Names are looked up.
fn syslog_address(text: &str) -> Result<SyslogAddress> {
    let invalid = |why: &str| Error::invalid(format!("syslog-address {text:?}: {why}"));
    if let Some(path) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unixgram://")) {
        return if path.starts_with('/') {
            Ok(SyslogAddress::Unix(path.into()))
        } else {
            Err(invalid("no path"))
        };
    }
    let Some(address) = text.strip_prefix("udp://").filter(|a| !a.is_empty()) else {
        return Err(invalid("only udp://, unix:// and unixgram:// are supported"));
    };
    let has_port =
        !address.ends_with(']') && address.rsplit_once(':').is_some_and(|(_, p)| p.parse::<u16>().is_ok());
    let address = if has_port { address.to_owned() } else { format!("{address}:514") };
    if let Ok(address) = address.parse::<SocketAddr>() {
        return Ok(SyslogAddress::Udp(address));
    }
    let found = address.to_socket_addrs().ok().and_then(|mut all| all.next());
    let found = found.ok_or_else(|| invalid("no such host"))?;
    // Who may not have this host send to itself has no other way by a name, or an address in disguise.
    if model::confine::is_near(found.ip()) && !address.starts_with("localhost:") {
        return Err(invalid(&format!("it means {}, this host; hint: write that, or localhost", found.ip())));
    }
    Ok(SyslogAddress::Udp(found))
}

/// Fills in a tag's template. *Source:* Docker docs, "Customize log driver output"; moby `daemon/logger/loginfo.go`.
///
/// # Errors
/// `InvalidParameter`: it is not a template, or asks for what a container does not have.
fn tag(template: Option<&str>, container: &Container, hostname: &str) -> Result<String> {
    let short = |id: &str| id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
    let config = &container.config;
    let values = serde_json::json!({
        "ID": short(&container.id),
        "FullID": container.id,
        "Name": container.name,
        "ImageID": short(&container.image_id),
        "ImageFullID": container.image_id,
        "ImageName": config.image,
        "Hostname": hostname,
        "DaemonName": "docker",
        "ContainerID": container.id,
        "ContainerName": format!("/{}", container.name),
        "ContainerImageID": container.image_id,
        "ContainerImageName": config.image,
        "ContainerEnv": config.env,
        "ContainerLabels": config.labels,
    });
    let text = template.filter(|t| !t.is_empty()).unwrap_or("{{.ID}}");
    template::fill(text, &values, &template::docker::Docker)
        .map_err(|error| Error::invalid(format!("log option tag {text:?}: {error}")))
}

/// Returns where the output of a container goes.
///
/// # Errors
/// As [`check`]; `InvalidParameter` too when the log service is not there.
pub(crate) fn target(container: &Container, hostname: &str) -> Result<LogTarget> {
    let log = &container.config.host.log;
    let Some(Asked { max_size_bytes, max_files, service }) = read(log)? else { return Ok(LogTarget::None) };
    let option = |key: &str| log.options.get(key).map(String::as_str);
    let listed = |key: &str| {
        option(key)
            .unwrap_or_default()
            .split(',')
            .filter(|k| !k.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let mut attrs: Vec<(String, String)> = Vec::new();
    for key in listed("labels") {
        attrs.extend(container.config.labels.get(&key).map(|v| (key.clone(), v.clone())));
    }
    for key in listed("env") {
        let value = container.config.env.iter().find_map(|e| e.split_once('=').filter(|(k, _)| *k == key));
        attrs.extend(value.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
    let name = tag(option("tag"), container, hostname)?;
    let failed = |why: String| Error::invalid(format!("failed to initialize logging driver: {why}"));
    let forward = match service {
        Service::None => None,
        Service::Journald => {
            if !Path::new(JOURNAL).exists() {
                return Err(failed("journald is not enabled on this host".into()));
            }
            Some(LogService::Journald {
                socket: JOURNAL.into(),
                fields: journal_fields(container, &name, &attrs),
            })
        }
        Service::Syslog { to, facility, format } => {
            let to = syslog_address(to.as_deref().unwrap_or(&format!("unixgram://{SYSLOG}")))?;
            if let SyslogAddress::Unix(path) = &to
                && !path.exists()
            {
                return Err(failed(format!("no syslog listens on {}", path.display())));
            }
            Some(LogService::Syslog {
                to,
                facility,
                tag: name.clone(),
                format,
                hostname: hostname.to_owned(),
            })
        }
    };
    if forward.is_none() && option("tag").is_some() {
        attrs.push(("tag".into(), name));
    }
    attrs.sort();
    Ok(LogTarget::JsonFile { path: container.log_path.clone(), max_size_bytes, max_files, attrs, forward })
}

/// *Source:* Docker docs, "Journald logging driver".
fn journal_fields(container: &Container, tag: &str, attrs: &[(String, String)]) -> Vec<(String, String)> {
    let short: String = container.id.chars().take(12).collect();
    let mut fields: Vec<(String, String)> = [
        ("CONTAINER_ID", short.as_str()),
        ("CONTAINER_ID_FULL", &container.id),
        ("CONTAINER_NAME", &container.name),
        ("CONTAINER_TAG", tag),
        ("IMAGE_NAME", &container.config.image),
        ("SYSLOG_IDENTIFIER", tag),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec();
    for (key, value) in attrs {
        // Source: sd_journal_print(3): upper case letters, digits and underscores, none of them in front.
        let key: String = key
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
            .collect();
        let key = key.trim_start_matches(|c: char| c == '_' || c.is_ascii_digit());
        if !key.is_empty() {
            fields.push((key.to_owned(), value.clone()));
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(driver: &str, options: &[(&str, &str)]) -> LogConfig {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        LogConfig { driver: driver.into(), options }
    }

    #[test]
    fn sizes_are_read_as_docker_writes_them() {
        for (text, bytes) in
            [("10m", 10 << 20), ("1G", 1 << 30), ("512kb", 512 << 10), ("100", 100), ("7b", 7)]
        {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        assert_eq!(size("lots"), None);
    }

    #[test]
    fn drivers_and_their_options_are_judged() {
        for (driver, options) in [
            ("", &[("max-size", "1m"), ("tag", "{{.Name}}")][..]),
            ("local", &[("compress", "true"), ("max-file", "1000")]),
            (
                "local",
                &[("tag", "{{with index .ContainerLabels \"tier\"}}{{upper .}}{{end}}-{{.ImageName}}")],
            ),
            ("none", &[]),
            ("journald", &[("labels", "a"), ("cache-max-size", "2m")]),
            ("syslog", &[("syslog-address", "udp://127.0.0.1"), ("syslog-facility", "local3")]),
            ("journald", &[("mode", "non-blocking"), ("max-buffer-size", "4m")]),
            ("syslog", &[("syslog-format", "rfc5424micro"), ("syslog-address", "unixgram:///dev/log")]),
        ] {
            check(&config(driver, options)).unwrap();
        }
        for (driver, options, what) in [
            ("nope", &[][..], "nope"),
            ("json-file", &[("nope", "1")], "unknown log opt 'nope'"),
            ("json-file", &[("tag", "{{.Name")], "unclosed action"),
            ("json-file", &[("tag", "{{nope .Name}}")], "function \"nope\" not defined"),
            ("journald", &[("max-size", "1m")], "for journald log driver"),
            ("", &[("max-size", "1"), ("max-file", "1001")], "max-file cannot be more than 1000"),
            ("journald", &[("cache-max-file", "4294967295")], "max-file cannot be more than 1000"),
            ("", &[("mode", "nope")], "logging mode not supported: nope"),
            ("local", &[("max-buffer-size", "4m")], "only supported with 'mode=non-blocking'"),
            ("local", &[("mode", "non-blocking"), ("max-buffer-size", "x")], "invalid size: 'x'"),
            ("syslog", &[("syslog-address", "tcp://x:1")], "only udp://"),
            ("syslog", &[("syslog-facility", "nope")], "invalid syslog facility: nope"),
            ("syslog", &[("syslog-format", "nope")], "Invalid syslog format: nope"),
        ] {
            let error = check(&config(driver, options)).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        assert_eq!(
            syslog_address("udp://192.0.2.1").unwrap(),
            SyslogAddress::Udp("192.0.2.1:514".parse().unwrap())
        );
    }

    /// Managers let an address through that is no loopback's as it is written.
    #[test]
    fn a_name_of_a_log_service_does_not_mean_this_host_unless_it_says_so() {
        for disguised in ["udp://127.1:514", "udp://2130706433", "udp://0x7f000001:53"] {
            let error = syslog_address(disguised).unwrap_err().to_string();
            assert!(error.contains("it means 127.0.0.1, this host"), "{disguised}: {error}");
        }
        for plain in ["udp://127.0.0.1:514", "udp://localhost:514", "udp://[::1]"] {
            syslog_address(plain).expect(plain);
        }
    }
}

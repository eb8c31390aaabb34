//! What the swarm says of its people and keys, on a manager.

use super::{Finding, Found, Host, names};
use docker_api::types;
use model::{AUDIT_MAX, Duration, Timestamp};
use std::{fs, io};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Admins beyond which one asks whether each is needed.
const ADMINS_MAX: usize = 5;
/// Age of a join token beyond which too many people have seen it.
const TOKEN_AGE_MAX: Duration = Duration::from_secs(90 * 24 * 3600);
/// Life of node certificates beyond which a stolen one is of use for long. Docker's is 90 days.
const LIFE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

fn days(time: Duration) -> u64 {
    time.as_secs() / DAY.as_secs()
}

fn users(host: &Host) -> Result<&[types::User], Finding> {
    host.manager()?;
    let users = host.answer(|a| &a.users)?;
    if users.is_empty() { Err(Finding::none("the swarm has no users yet")) } else { Ok(users) }
}

pub(super) fn admins(host: &Host) -> Found {
    let users = users(host)?;
    let admins: Vec<&str> =
        users.iter().filter(|user| user.spec.role == "admin").map(|user| user.spec.name.as_str()).collect();
    let found = format!("{} of {} users are admins: {}", admins.len(), users.len(), names(&admins));
    Ok(match admins.first() {
        None => Finding::ok(format!("none of {} users is an admin", users.len())),
        Some(first) if admins.len() > ADMINS_MAX => Finding::warn(
            found,
            format!("rswarm user update {first} --role deploy, for each who only deploys"),
        ),
        Some(_) => Finding::ok(found),
    })
}

/// Clocks that are off, and copies of nodes: as managers find them.
pub(super) fn odd_nodes(host: &Host) -> Found {
    host.manager()?;
    let nodes = host.answer(|a| &a.nodes)?;
    let odd = nodes.iter().filter(|node| node.status.state == "ready" && !node.status.message.is_empty());
    let odd: Vec<String> =
        odd.map(|node| format!("{}: {}", node.description.hostname, node.status.message)).collect();
    Ok(if odd.is_empty() {
        Finding::ok(format!("of {} nodes none has its clock off, or its certificate copied", nodes.len()))
    } else {
        let hint = "clocks: chronyc makestep, or timedatectl set-ntp true; a copied node: stop the copy, remove its \
                    data folder, and let it join for itself";
        Finding::warn(names(&odd), hint)
    })
}

pub(super) fn lasting_tokens(host: &Host) -> Found {
    let mut lasting = Vec::new();
    for user in users(host)? {
        let tokens = user.tokens.iter().filter(|token| token.expires_at.is_none());
        lasting.extend(tokens.map(|token| (user.spec.name.as_str(), token.id.as_str())));
    }
    Ok(match lasting.first() {
        None => Finding::ok("every token expires"),
        Some((user, token)) => {
            let all: Vec<String> = lasting.iter().map(|(user, token)| format!("{token} of {user}")).collect();
            Finding::warn(
                format!("tokens that never expire: {}", names(&all)),
                format!("rswarm user token rm {user} {token}; rswarm user token create {user} --expires 90d"),
            )
        }
    })
}

pub(super) fn audit(host: &Host) -> Found {
    host.manager()?;
    let records = host.answer(|a| &a.audit)?;
    let Some(oldest) = records.first() else { return Ok(Finding::ok("it is on; nothing was written yet")) };
    let found = format!("{} records since {}", records.len(), oldest.at);
    let covers = host.now.since(oldest.at.timestamp());
    Ok(if records.len() >= AUDIT_MAX && covers < DAY {
        Finding::warn(
            format!("{found}: of less than a day, older ones are gone"),
            "keep the daemon's log, which has them all; rswarm audit shows who writes so much",
        )
    } else {
        Finding::ok(found)
    })
}

fn spec(host: &Host) -> Result<&types::Swarm, Finding> {
    host.manager()?;
    // Not by the question for the swarm, whose answer has its tokens: that is for who needs them.
    let swarm = &host.answer(|a| &a.info)?.swarm;
    swarm.cluster.as_ref().ok_or_else(|| Finding::unknown(format!("no manager answers: {}", swarm.error), ""))
}

pub(super) fn autolock(host: &Host) -> Found {
    Ok(if spec(host)?.spec.encryption_config.auto_lock_managers {
        Finding::ok("a manager that restarts waits for the unlock key")
    } else {
        Finding::warn(
            "who copies a manager's disk has the swarm's keys",
            "rswarm swarm update --autolock=true; rswarm swarm unlock-key",
        )
    })
}

/// The flag is a word; here is what lies on the disk.
pub(super) fn sealed_keys(host: &Host) -> Found {
    let folder = host.place.data_root.join("swarm");
    let mut open = Vec::new();
    for name in ["raft.key", "certificates/node.pem"] {
        let path = folder.join(name);
        match fs::read(&path) {
            Ok(bytes) if !pki::is_locked(&String::from_utf8_lossy(&bytes)) => {
                open.push(path.display().to_string());
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(host.unreadable(&path, &e)),
        }
    }
    if !spec(host)?.spec.encryption_config.auto_lock_managers {
        return Ok(Finding::none("autolock is off"));
    }
    Ok(if open.is_empty() {
        Finding::ok("this manager's keys are sealed")
    } else {
        Finding::bad(
            format!("autolock is on, and {} is not sealed", names(&open)),
            "systemctl restart rswarm; rswarm swarm unlock; its log says why, if it is still so",
        )
    })
}

pub(super) fn node_certificate(host: &Host) -> Found {
    let path = host.place.data_root.join("swarm/certificates/node.pem");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(Finding::none("this host is in no swarm"));
        }
        Err(e) => return Err(host.unreadable(&path, &e)),
    };
    let again = "rswarm swarm leave --force; then join anew with a token from a manager";
    let (from, until) = match pki::node_certificate_life(&text) {
        Ok(life) => life,
        Err(e) => return Ok(Finding::bad(format!("{}: {e}", path.display()), again)),
    };
    if until <= host.now {
        return Ok(Finding::bad(
            format!("it expired {} days ago", days(host.now.since(until))),
            "see that a manager is reachable: it is renewed while the node is known",
        ));
    }
    let (life, left) = (until.since(from), until.since(host.now));
    let found = format!("good for {} more days of {}", days(left), days(life));
    // It is renewed after half of its life at the latest.
    Ok(if left < life / 5 {
        Finding::warn(
            format!("{found}, and not renewed"),
            "see that a manager is reachable and that this host's clock is right",
        )
    } else {
        Finding::ok(found)
    })
}

pub(super) fn certificate_life(host: &Host) -> Found {
    let nanos = u64::try_from(spec(host)?.spec.ca_config.node_cert_expiry).unwrap_or(0);
    let life = Duration::from_nanos(nanos);
    let found = format!("node certificates live {} days", days(life));
    Ok(if life > LIFE_MAX {
        Finding::warn(
            format!("{found}: a stolen one is of use for as long"),
            "rswarm swarm update --cert-expiry 2160h",
        )
    } else {
        Finding::ok(found)
    })
}

pub(super) fn join_tokens(host: &Host) -> Found {
    let swarm = spec(host)?;
    let since = |role: &str| -> Result<Timestamp, Finding> {
        let mut records = host.answer(|a| &a.audit)?.iter().rev();
        let what = format!("join-token {role}");
        let rotated = records.find(|r| r.action == "rotate" && r.object.contains(&what)).map(|r| r.at);
        Ok(rotated.unwrap_or(swarm.created_at).timestamp())
    };
    let age = host.now.since(since("worker")?.min(since("manager")?));
    let found = format!("the older one is {} days old at most", days(age));
    Ok(if age > TOKEN_AGE_MAX {
        Finding::warn(
            found,
            "rswarm swarm join-token --rotate worker; rswarm swarm join-token --rotate manager",
        )
    } else {
        Finding::ok(found)
    })
}

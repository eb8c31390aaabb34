//! What keeps a member what it is to be while it runs: its certificate, role, known managers, and the lock of its keys.
//!
//! ```text
//!  session (what the swarm says) --.
//!  own replica (settings, lock) ---+--> Keeper --> certificate, record on disk, known managers
//!  clock (a certificate's age) ----'          '--> Outcome::Restart: another role, or another life of the swarm
//! ```

use super::{
    Outcome, RETRY, Start, View,
    certificate::{CA_LIMIT, Issued, issue, issued, new_key},
    managers_of, random_u64,
};
use crate::{clock::clock, lock, record::Record};
use anyhow::{Context, Result};
use model::Role;
use pki::UnlockKey;
use proto::ca::{JoinRaftRequest, membership_client::MembershipClient};
use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long a manager may take to write down that another one has another address.
const RELOCATE_LIMIT: Duration = Duration::from_secs(5);
/// How often a node compares what it is with what it is to be.
const LOOK: Duration = Duration::from_secs(1);
/// How long a manager that takes part in Raft may seem not to, by its session: it may be news.
const OUT_OF_RAFT: Duration = Duration::from_secs(3);

/// Keeps certificate, role, known managers and the lock of a manager's keys up to date.
pub(super) struct Keeper {
    pub(super) start: Start,
    pub(super) record: Mutex<Record>,
    /// Of a manager.
    pub(super) dek: Option<store::Dek>,
    pub(super) manager: Option<manager::Manager>,
    pub(super) heard: watch::Receiver<agent::View>,
    pub(super) view: watch::Sender<View>,
    pub(super) known: watch::Sender<Vec<SocketAddr>>,
}

impl Keeper {
    /// Works until cancelled, or until the member must begin anew.
    pub(super) async fn run(mut self, cancel: CancellationToken) -> Result<Outcome> {
        let role = self.start.credentials.identity().role;
        let random = random_u64();
        let mut out_since: Option<Instant> = None;
        let mut applied = self.view.borrow().store.as_ref().map(store::Handle::watch);
        loop {
            let (not_before, not_after) = self.start.credentials.validity();
            let due = pki::renewal_due(not_before, not_after, random).since(clock());
            let renew = tokio::select! {
                () = cancel.cancelled() => return Ok(Outcome::Cancelled),
                () = sleep(due) => true,
                () = sleep(LOOK) => {
                    let heard = self.heard.borrow().clone();
                    if self.follow_incarnation(role)? {
                        return Ok(Outcome::Restart);
                    }
                    self.tell_new_address(role).await;
                    if role == Role::Manager && self.seems_out_of_raft(&heard) {
                        if out_since.get_or_insert_with(Instant::now).elapsed() > OUT_OF_RAFT {
                            tracing::warn!("this manager was taken out of Raft: it takes part under a new number");
                            self.change_role(Role::Manager)?;
                            return Ok(Outcome::Restart);
                        }
                    } else {
                        out_since = None;
                    }
                    role_changes(&heard, role)
                }
                () = next_entry(&mut applied) => match self.follow_settings() {
                    // The key was on disk without a lock: a new one never is.
                    Ok(first) => first,
                    Err(error) => {
                        tracing::warn!(error = format!("{error:#}"), "cannot change the lock of this manager's keys; will retry");
                        tokio::select! {
                            () = cancel.cancelled() => return Ok(Outcome::Cancelled),
                            () = sleep(RETRY) => {}
                        }
                        applied.iter_mut().for_each(watch::Receiver::mark_changed);
                        false
                    }
                },
                changed = self.heard.changed() => {
                    if changed.is_err() {
                        return Ok(Outcome::Cancelled);
                    }
                    let heard = self.heard.borrow_and_update().clone();
                    self.learn(&heard)?;
                    role_changes(&heard, role) || (heard.root_ca.is_some() && self.has_an_old_root())
                }
            };
            if !renew {
                continue;
            }
            match self.renew(role).await {
                Ok(new) if new == role => tracing::info!("certificate renewed"),
                Ok(new) => {
                    tracing::info!(from = ?role, to = ?new, "role changed");
                    self.change_role(new)?;
                    return Ok(Outcome::Restart);
                }
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "certificate not renewed; will retry");
                    tokio::select! {
                        () = cancel.cancelled() => return Ok(Outcome::Cancelled),
                        () = sleep(RETRY) => {}
                    }
                    self.heard.mark_changed();
                }
            }
        }
    }

    /// Tells the others where this manager is, if the state says otherwise: it has come back at another address. Raft
    /// reaches it there from then on.
    async fn tell_new_address(&self, role: Role) {
        let store = self.view.borrow().store.clone().filter(|_| role == Role::Manager);
        let Some(store) = store else { return };
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (Some(raft_id), addr) = (record.raft_id, record.advertise_addr) else { return };
        let node = self.start.credentials.identity().node;
        let known = store.view().nodes.get(&node).and_then(|n| n.manager);
        if known.is_none_or(|known| known.raft_id != raft_id || known.addr == addr) {
            return;
        }
        let ask = JoinRaftRequest { raft_id, addr: addr.to_string(), feature_level: model::FEATURE_LEVEL };
        for manager in managers_of(&record, true) {
            let mut asked = MembershipClient::new(self.start.connections.manager(manager, None));
            match timeout(RELOCATE_LIMIT, asked.join_raft(ask.clone())).await {
                Ok(Ok(_)) => {
                    tracing::info!(%addr, "the managers know the new address of this one");
                    return;
                }
                Ok(Err(status)) => {
                    tracing::debug!(%manager, error = status.message(), "not told of the new address");
                }
                Err(_) => tracing::debug!(%manager, "not told of the new address: no answer"),
            }
        }
    }

    /// Tells whether the session says that this manager is to be one, but under no number or another one's.
    fn seems_out_of_raft(&self, heard: &agent::View) -> bool {
        let own = self.record.lock().unwrap_or_else(PoisonError::into_inner).raft_id;
        // While the leader sends it entries it is in Raft, whatever is recorded: the leader will put that right.
        let in_raft = self.view.borrow().store.as_ref().is_some_and(store::Handle::is_current);
        !in_raft
            && heard.manager.is_some()
            && heard
                .node
                .as_ref()
                .is_some_and(|n| n.spec.role == Role::Manager && n.manager.map(|m| m.raft_id) != own)
    }

    /// Tells whether this node's certificate is of a root that another is to replace.
    fn has_an_old_root(&self) -> bool {
        let credentials = &self.start.credentials;
        let desired = pki::Authority::last_of(&credentials.root_pem()).ok();
        desired.is_some() && credentials.issuer() != desired
    }

    /// Notes what the session told of managers and root certificates, and whether there is one at all.
    fn learn(&self, heard: &agent::View) -> Result<()> {
        match &heard.error {
            Some(why) if heard.refused => self.refused(why),
            Some(_) => {}
            None => {
                self.view.send_if_modified(|view| !std::mem::take(&mut view.error).is_empty());
            }
        }
        if let Some(root) = &heard.root_ca
            && *root != self.start.credentials.root_pem()
        {
            self.start.credentials.replace_roots(root).context("cannot take over new root certificates")?;
        }
        let gate = self.start.connections.gate();
        if heard.incarnation < *gate.incarnation.borrow() {
            return Ok(()); // the swarm has begun anew since, with other managers
        }
        gate.hear(&heard.roster, &heard.removed);
        if heard.managers.is_empty() {
            return Ok(());
        }
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        if record.managers != heard.managers {
            record.managers.clone_from(&heard.managers);
            if let Err(error) = self.start.folder.store(&record) {
                // They are told again; a full disk must not end what runs.
                tracing::warn!(error = format!("{error:#}"), "the addresses of the managers are not on disk");
            }
            self.known.send_replace(managers_of(&record, self.manager.is_some()));
            self.view.send_modify(|view| view.managers.clone_from(&heard.managers));
        }
        Ok(())
    }

    /// Follows the swarm where it has begun anew: keeps its managers in mind, and returns true when this manager's own
    /// state is of an earlier life. It lets go of its state then, and finds out what it is to be now.
    fn follow_incarnation(&self, role: Role) -> Result<bool> {
        let gate = self.start.connections.gate();
        let state = self.view.borrow().store.as_ref().map(store::Handle::view);
        let own = state.as_ref().and_then(|state| state.cluster.as_ref());
        let latest = gate.raise(own.and_then(|cluster| cluster.incarnation));
        let announced = gate.take_announced();
        let left_behind = role == Role::Manager && own.is_some_and(|cluster| cluster.incarnation < latest);
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        if record.incarnation() == latest && announced.is_none() && !left_behind {
            return Ok(false);
        }
        record.set_incarnation(latest);
        if let Some(managers) = announced {
            tracing::info!(?managers, "the swarm has begun anew, with these managers");
            record.managers = managers;
            self.known.send_replace(managers_of(&record, self.manager.is_some()));
            self.view.send_modify(|view| view.managers.clone_from(&record.managers));
        }
        self.start.folder.store(&record)?;
        drop(record);
        if left_behind {
            tracing::warn!(
                "the swarm was recovered or restored without this manager: it lets go of its own state"
            );
            self.change_role(Role::Manager)?;
        }
        Ok(left_behind)
    }

    /// Follows the swarm's settings: how often a snapshot is made, and the lock of this manager's keys. Returns true
    /// if they had none before.
    fn follow_settings(&self) -> Result<bool> {
        let Some(dek) = &self.dek else { return Ok(false) };
        let Some(state) = self.view.borrow().store.as_ref().map(store::Handle::view) else {
            return Ok(false);
        };
        let Some(cluster) = &state.cluster else { return Ok(false) };
        let spec = &cluster.spec;
        let behind = spec.slow_follower_entries.unwrap_or(model::SLOW_FOLLOWER_ENTRIES);
        if let Some(store) = &self.view.borrow().store {
            store.set_snapshots(spec.snapshot_interval, spec.old_snapshots, behind);
        }
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        if cluster.meta.version <= record.lock_version {
            return Ok(false);
        }
        let new = match &cluster.unlock_key {
            None => None,
            Some(key) => Some(std::str::from_utf8(&key.0)?.parse::<UnlockKey>()?),
        };
        let credentials = &self.start.credentials;
        let old = credentials.lock();
        if old == new {
            return Ok(false);
        }
        let locked = new.is_some();
        lock::change(&self.start.folder, credentials, dek, new)?;
        record.lock_version = cluster.meta.version;
        self.start.folder.store(&record)?;
        tracing::info!(locked, "the lock of this manager's keys changed");
        Ok(old.is_none() && locked)
    }

    /// Gets a new certificate and puts it into use; returns its role. A manager that leads gives itself one; others
    /// ask any manager, also with a certificate that has expired.
    async fn renew(&self, role: Role) -> Result<Role> {
        let mut last = anyhow::anyhow!("no manager is known");
        if let Some(manager) = &self.manager {
            let (key, csr_pem) = new_key()?;
            match timeout(CA_LIMIT, manager.renew(&csr_pem)).await {
                Ok(Ok(reply)) => return self.adopt(role, issued(&key, reply)?),
                Ok(Err(status)) => last = anyhow::Error::from(status).context("this manager"),
                Err(_) => {}
            }
        }
        let managers = {
            let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
            managers_of(&record, self.manager.is_some())
        };
        let mut refusal = None;
        for addr in managers {
            let channel = self.start.connections.new_to_manager(addr);
            match issue(channel, "", model::Availability::Active).await {
                Ok(issued) => return self.adopt(role, issued),
                Err(status) => {
                    if status.code() == tonic::Code::PermissionDenied {
                        refusal = Some(status.message().to_owned());
                    }
                    last = anyhow::Error::from(status).context(format!("manager {addr}"));
                }
            }
        }
        if let Some(refusal) = refusal {
            self.refused(&refusal);
        }
        Err(last)
    }

    /// Puts a new certificate into use. Asked too early, it still has the old role.
    fn adopt(&self, role: Role, issued: Issued) -> Result<Role> {
        let credentials = &self.start.credentials;
        let had_expired = credentials.validity().1 <= clock();
        let (key, chain, root) = (&issued.key_pem, &issued.chain_pem, &issued.root_pem);
        if issued.role == role {
            credentials.replace(key, chain, root)?;
        } else {
            credentials.replace_and_lock(key, chain, root, issued.lock)?;
            let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
            record.lock_version = issued.lock_version;
        }
        if had_expired {
            self.start.connections.renew();
        }
        self.view.send_if_modified(|view| !std::mem::take(&mut view.error).is_empty());
        Ok(issued.role)
    }

    /// Tells people, once, that the swarm knows this node no more.
    fn refused(&self, why: &str) {
        let text = format!(
            "the managers refuse this node: {why}; hint: `swarm leave --force` on this host, then `swarm join` with a \
             token that `swarm join-token` shows on a manager"
        );
        let news = self.view.send_if_modified(|view| {
            let news = view.error != text;
            view.error.clone_from(&text);
            news
        });
        if news {
            tracing::error!(error = text, "this node is no member of the swarm any more");
        }
    }

    /// Prepares the disk for the new role. A demoted manager's part in Raft is over for good.
    fn change_role(&self, new: Role) -> Result<()> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.raft_id = None;
        record.raft_joined = false;
        if new == Role::Worker {
            let own = record.advertise_addr;
            record.managers.retain(|a| *a != own);
        }
        self.start.folder.store(&record)
    }
}

/// Tells whether a node in this role is to be certified for another one. A demoted manager is so only once it is out of
/// Raft.
fn role_changes(heard: &agent::View, role: Role) -> bool {
    heard.node.as_ref().is_some_and(|n| match n.spec.role {
        Role::Manager => role != Role::Manager,
        Role::Worker => role != Role::Worker && n.manager.is_none(),
    })
}

/// Waits until the replica of a manager has applied something.
async fn next_entry(applied: &mut Option<watch::Receiver<u64>>) {
    let stopped = match applied {
        Some(applied) => applied.changed().await.is_err(),
        None => true,
    };
    if stopped {
        std::future::pending().await
    }
}

//! `moby.buildkit.v1.Control`: builds begin and end, are watched, and what they left can be pruned.

use super::{build, build::Build};
use crate::server::State;
use engine::Filters;
use futures::{StreamExt as _, stream::BoxStream};
use prost_types::Timestamp;
use proto::buildkit::{
    control::{
        DiskUsageRequest, DiskUsageResponse, InfoRequest, InfoResponse, ListWorkersRequest,
        ListWorkersResponse, PruneRequest, SolveRequest, SolveResponse, StatusRequest, StatusResponse,
        UsageRecord, control_server::Control,
    },
    ops::Platform,
    types::{BuildkitVersion, WorkerRecord},
};
use std::{collections::BTreeMap, sync::Arc};
use tonic::{Request, Response, Status};

pub(super) struct Service(pub(super) State);

/// What a builder of this version of ours is, for those who ask which BuildKit it is.
fn version() -> BuildkitVersion {
    BuildkitVersion {
        package: "rswarm".to_owned(),
        // The protocol's: clients leave out what an older one does not know.
        version: "v0.12.0".to_owned(),
        revision: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Returns what a prune is to remove, and of how many bytes it is to leave the newest.
///
/// # Errors
/// For what it cannot heed: nothing is removed by a word that was not understood.
fn pruned(asked: &PruneRequest) -> Result<(Filters, u64), Status> {
    let number = |what: &str, n: i64| {
        u64::try_from(n).map_err(|_| Status::invalid_argument(format!("{what} must not be negative: {n}")))
    };
    no_filter(&asked.filter)?;
    if number("min-free-space", asked.min_free_space)? > 0 {
        return Err(Status::invalid_argument(
            "min-free-space is not supported here; hint: max-used-space says how much of the cache is kept",
        ));
    }
    let (most, least) =
        (number("max-used-space", asked.max_used_space)?, number("reserved-space", asked.keep_bytes)?);
    let mut filters = Filters::default();
    let young = number("keep-duration", asked.keep_duration)? / 1_000_000_000;
    if young > 0 {
        filters.0.insert("until".to_owned(), vec![format!("{young}s")]);
    }
    Ok((filters, if most > 0 { most } else { least }))
}

pub(super) fn worker() -> WorkerRecord {
    let ours = image::Platform::default();
    let platform =
        Platform { architecture: ours.architecture, os: ours.os, variant: ours.variant.unwrap_or_default() };
    WorkerRecord {
        id: "rswarm".to_owned(),
        labels: BTreeMap::from([(
            "org.mobyproject.buildkit.worker.executor".to_owned(),
            "rswarm".to_owned(),
        )]),
        platforms: vec![platform],
        buildkit_version: Some(version()),
    }
}

fn failed(error: engine::Error) -> Status {
    Status::unknown(error.to_string())
}

fn no_filter(filters: &[String]) -> Result<(), Status> {
    match filters.iter().find(|filter| !filter.is_empty()) {
        Some(other) => Err(Status::invalid_argument(format!("the filter {other:?} is not known here"))),
        None => Ok(()),
    }
}

fn timestamp(at: model::Timestamp) -> Option<Timestamp> {
    let nanos = at.0.rem_euclid(1_000_000_000);
    Some(Timestamp { seconds: at.0.div_euclid(1_000_000_000), nanos: i32::try_from(nanos).unwrap_or(0) })
}

impl Service {
    fn engine(&self) -> Result<&engine::Engine, Status> {
        self.0.engine().map_err(|e| Status::unavailable(e.message))
    }

    fn records(&self) -> Result<Vec<UsageRecord>, Status> {
        let record = |step: engine::CachedStep| UsageRecord {
            id: step.id,
            size: i64::try_from(step.size_bytes).unwrap_or(i64::MAX),
            created_at: timestamp(step.created_at),
            last_used_at: timestamp(step.last_used_at),
            usage_count: i64::try_from(step.uses).unwrap_or(i64::MAX),
            description: step.description,
            record_type: "regular".to_owned(),
            ..UsageRecord::default()
        };
        Ok(self.engine()?.build_cache().into_iter().map(record).collect())
    }
}

#[tonic::async_trait]
impl Control for Service {
    type PruneStream = BoxStream<'static, Result<UsageRecord, Status>>;
    type StatusStream = BoxStream<'static, Result<StatusResponse, Status>>;

    async fn disk_usage(
        &self,
        request: Request<DiskUsageRequest>,
    ) -> Result<Response<DiskUsageResponse>, Status> {
        no_filter(&request.get_ref().filter)?;
        Ok(Response::new(DiskUsageResponse { record: self.records()? }))
    }

    async fn prune(&self, request: Request<PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        let (filters, kept) = pruned(&request.into_inner())?;
        let before = self.records()?;
        let (gone, _) = self.engine()?.prune_builds(&filters, kept).await.map_err(failed)?;
        let removed: Vec<_> = before.into_iter().filter(|r| gone.contains(&r.id)).map(Ok).collect();
        Ok(Response::new(futures::stream::iter(removed).boxed()))
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let mut request = request.into_inner();
        if request.exporters.is_empty() && !request.exporter_deprecated.is_empty() {
            request.exporters = vec![proto::buildkit::control::Exporter {
                r#type: std::mem::take(&mut request.exporter_deprecated),
                attrs: std::mem::take(&mut request.exporter_attrs_deprecated),
            }];
        }
        let names = build::names(&request.exporters)?;
        let running = self.0.buildkit.builds.begin(&request.r#ref, &request.session)?;
        let build: &Build = &running;
        let image = if request.frontend.is_empty() {
            build.returned().await?
        } else {
            Some(build::run(&self.0, build, &request.frontend, request.frontend_attrs).await?)
        };
        let exporter_response = match image {
            Some(image) => build::export(self.engine()?, build, image, &names).await?,
            None => BTreeMap::new(),
        };
        Ok(Response::new(SolveResponse { exporter_response }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let build = self.0.buildkit.builds.get(&request.into_inner().r#ref).await?;
        let messages = futures::stream::unfold((build, 0), |(build, seen): (Arc<Build>, usize)| async move {
            let new = build.progress.after(seen).await?;
            let seen = seen + new.len();
            Some((futures::stream::iter(new.into_iter().map(Ok)), (build, seen)))
        });
        Ok(Response::new(messages.flatten().boxed()))
    }

    async fn list_workers(
        &self,
        _: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        Ok(Response::new(ListWorkersResponse { record: vec![worker()] }))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse { buildkit_version: Some(version()) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut PruneRequest);

    #[test]
    fn a_prune_that_is_not_understood_removes_nothing() {
        let asked = |change: &dyn Fn(&mut PruneRequest)| {
            let mut request = PruneRequest::default();
            change(&mut request);
            pruned(&request).map(|(filters, kept)| (filters.0.get("until").cloned(), kept))
        };
        assert_eq!(asked(&|_| {}).unwrap(), (None, 0));
        assert_eq!(asked(&|r: &mut PruneRequest| r.keep_bytes = 5).unwrap(), (None, 5));
        let hour =
            asked(&|r: &mut PruneRequest| (r.keep_duration, r.max_used_space) = (3_600_000_000_000, 7))
                .unwrap();
        assert_eq!(hour, (Some(vec!["3600s".to_owned()]), 7));
        let bad: [(&str, Change); 5] = [
            ("max-used-space", |r| r.max_used_space = -1),
            ("reserved-space", |r| r.keep_bytes = -1),
            ("keep-duration", |r| r.keep_duration = -1),
            ("min-free-space", |r| r.min_free_space = 1),
            ("min-free-space", |r| r.min_free_space = -1),
        ];
        for (name, change) in bad {
            let refused = asked(&change).unwrap_err();
            assert!(refused.message().contains(name), "{name}: {refused}");
        }
    }
}

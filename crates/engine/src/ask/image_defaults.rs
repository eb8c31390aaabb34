//! Reads an image's configuration as defaults of containers.

use crate::ask::{config::Healthcheck, merge::ImageDefaults};
use std::time::Duration;

pub(crate) fn of(image: &image::Image) -> ImageDefaults {
    let config = &image.config.config;
    let given = |d: Duration| Some(d).filter(|d| !d.is_zero());
    let healthcheck = config.healthcheck.as_ref().map(|h| Healthcheck {
        test: h.test.clone(),
        interval: given(h.interval),
        timeout: given(h.timeout),
        start_period: given(h.start_period),
        start_interval: given(h.start_interval),
        retries: Some(h.retries).filter(|r| *r > 0),
    });
    ImageDefaults {
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        env: config.env.clone(),
        user: config.user.clone(),
        working_dir: config.working_dir.clone(),
        labels: config.labels.clone(),
        // A port that cannot be read cannot be published either: it is only a note of the image's author.
        exposed_ports: config.exposed_ports.iter().filter_map(|p| p.parse().ok()).collect(),
        volumes: config.volumes.iter().cloned().collect(),
        stop_signal: config.stop_signal.clone(),
        healthcheck,
    }
}

//! `cargo xtask soak`: three managers and two agents in one process, where services come, grow, are updated and go; and
//! a drawing of the memory that takes. Fails when there is more of it at the end than after the first rounds.

use anyhow::{Context, Result, bail};
use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds; the last hundred must take no more memory than the hundred behind the 200th.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(400..))]
    rounds: u32,
    /// Where the drawing goes.
    #[arg(long, default_value = "target/soak.svg")]
    svg: PathBuf,
}

const TEST: &str = "tests::soak::memory_after_many_rounds_is_what_it_was_after_the_first_ones";

/// What the process had at the end of a round. *Unit:* bytes.
struct Round {
    number: f64,
    resident: f64,
    allocated: f64,
}

/// Runs the rounds and draws.
///
/// # Errors
/// Memory grew (the drawing is made all the same), or it cannot be built or run.
pub(crate) fn run(args: &Args) -> Result<()> {
    let cargo =
        ["test", "--locked", "-p", "manager", "--lib", "--", "--ignored", "--nocapture", "--exact", TEST];
    let mut child = Command::new("cargo")
        .args(cargo)
        .env("SOAK_ROUNDS", args.rounds.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let mut rounds = Vec::new();
    for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
        let line = line?;
        match round(&line) {
            Some(round) if round.number % 100.0 == 0.0 => {
                println!(
                    "{}: {:.1} MB resident, {:.1} MB allocated",
                    round.number,
                    mb(round.resident),
                    mb(round.allocated)
                );
                rounds.push(round);
            }
            Some(round) => rounds.push(round),
            None => println!("{line}"),
        }
    }
    let status = child.wait()?;
    if rounds.is_empty() {
        bail!("no round was run: {status}");
    }
    write(&args.svg, &draw(&rounds))?;
    println!("{}", args.svg.display());
    if !status.success() {
        bail!("memory grew: {status}");
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn mb(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

/// Reads what the test prints at the end of each round.
fn round(line: &str) -> Option<Round> {
    let (_, figures) = line.split_once("soak ")?;
    let figures: Vec<f64> = figures.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [number, resident, allocated] = figures[..] else { return None };
    Some(Round { number, resident, allocated })
}

/// Draws both figures over the rounds.
fn draw(rounds: &[Round]) -> String {
    const WIDTH: f64 = 900.0;
    const HEIGHT: f64 = 400.0;
    const MARGIN: f64 = 60.0;
    let last = rounds.last().map_or(1.0, |r| r.number);
    let most = rounds.iter().map(|r| mb(r.resident).max(mb(r.allocated))).fold(1.0, f64::max);
    let top = (most / 50.0).ceil() * 50.0;
    let x = |number: f64| MARGIN + number / last * WIDTH;
    let y = |mb: f64| MARGIN + HEIGHT - mb / top * HEIGHT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"25\">Memory of three managers and two agents in one process, MB, over rounds of create, \
         scale, update, remove</text>\n",
        WIDTH + 2.0 * MARGIN,
        HEIGHT + 2.0 * MARGIN,
    );
    for step in 0..=5 {
        let (share, right) = (f64::from(step) / 5.0, MARGIN + WIDTH);
        let (level, number) = (share * top, share * last);
        let (across, along) = (y(level), x(number));
        let below = MARGIN + HEIGHT + 20.0;
        let _written = writeln!(
            svg,
            "<line x1=\"{MARGIN}\" x2=\"{right}\" y1=\"{across:.1}\" y2=\"{across:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{level:.0}</text>\
             <text x=\"{along:.1}\" y=\"{below}\" text-anchor=\"middle\">{number:.0}</text>",
            MARGIN - 8.0,
            across + 4.0,
        );
    }
    let line = |colour: &str, of: fn(&Round) -> f64| {
        let points: Vec<String> =
            rounds.iter().map(|r| format!("{:.1},{:.1}", x(r.number), y(mb(of(r))))).collect();
        format!(
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>\n",
            points.join(" ")
        )
    };
    svg += &line("#c33", |r| r.resident);
    svg += &line("#36c", |r| r.allocated);
    let _written = writeln!(
        svg,
        "<text x=\"{MARGIN}\" y=\"45\"><tspan fill=\"#c33\">resident</tspan> <tspan fill=\"#36c\">allocated</tspan></text>\n\
         </svg>"
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_soak_prints_is_read_and_drawn() {
        assert!(round("test tests::soak::x ... soak").is_none());
        let rounds: Vec<Round> = ["test x ... soak 1 52428800 10485760", "soak 2 78643200 10485760"]
            .iter()
            .filter_map(|line| round(line))
            .collect();
        let svg = draw(&rounds);
        // Of 100 MB: 50 are half the height, 75 three quarters.
        assert!(svg.contains("points=\"510.0,260.0 960.0,160.0\""), "{svg}");
        assert!(svg.ends_with("</svg>\n"));
    }
}

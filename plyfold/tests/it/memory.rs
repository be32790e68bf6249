//! What several hostile layers take together, in a process whose peak is measured.

use std::io::{self, Write as _};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use std::{env, fs};

use plyfold::layer::{LayerLimits, LayerTar, TreeBudget, TreeLimits};
use plyfold::tree::LayerTreeBuilder;
use plyfold::{Format, Images, Input, Made, Materializer, Materializers, PullOptions, Result, Role, Sink};
use plyfold_conformance::samples::{LayerBuilder, of_layers, write_layout};

const MIB: u64 = 1 << 20;
const LAYERS: usize = 8;
/// What the layers' metadata may take in the process that is measured: nothing else is said in the other one.
const BUDGET: &str = "PLYFOLD_MEMORY_BUDGET";
const PLACE: &str = "PLYFOLD_MEMORY_PLACE";

/// Symbolic links of 9 MiB of targets.
fn hostile(layer: usize) -> Vec<u8> {
    let mut builder = LayerBuilder::new();
    for number in 0..2_300 {
        let target = format!("{layer}/{number}/{}", "t".repeat(4_050));
        builder = builder.pax("linkpath", target).symlink(format!("{layer}-{number}"), "");
    }
    builder.finish()
}

/// The peak in bytes (`proc(5)`, `VmHWM`) of this test again as a process with that budget.
fn peak(place: &str, budget: u64) -> u64 {
    let test = "memory::layers_that_are_converted_together_share_a_budget";
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(PLACE, place).env(BUDGET, budget.to_string());
    let run = command.output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{said} {}", String::from_utf8_lossy(&run.stderr));
    let peak = said.split("peak:").nth(1).and_then(|rest| rest.split_whitespace().next());
    peak.unwrap_or_else(|| panic!("{said}")).parse::<u64>().unwrap() * 1024
}

#[test]
fn layers_that_are_converted_together_share_a_budget() {
    if let Ok(place) = env::var(PLACE) {
        let budget = env::var(BUDGET).unwrap().parse().unwrap();
        // Those that share too little memory never meet.
        let patience = if budget < LAYERS as u64 * MIB { 200 } else { 20_000 };
        let (budget, patience) = (TreeBudget::new(budget), Duration::from_millis(patience));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(materialize(&place, &budget, patience));
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        return io::stdout().write_all(format!("\npeak:{line}\n").as_bytes()).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_str().unwrap();
    let layers: Vec<_> = (0..LAYERS).map(hostile).collect();
    write_layout(&dir.path().join("image"), &[("latest".to_owned(), &of_layers("hostile", &layers))])
        .unwrap();
    let (shared, each_its_own) = (peak(place, 4 * MIB), peak(place, 1024 * MIB));
    // 72 MiB of trees in all against 4 MiB and one tree; allocators give less back than was freed.
    assert!(shared + 16 * MIB < each_its_own, "{} and {} KiB", shared / 1024, each_its_own / 1024);
}

/// Reads a layer, and holds its tree until the others have theirs: as long as `patience` at most.
#[derive(Clone, Debug)]
struct Together {
    here: Arc<(Mutex<usize>, Condvar)>,
    patience: Duration,
}

impl Materializer for Together {
    fn format(&self) -> Format {
        Format { name: "together", version: 1, options: String::new(), extension: "none" }
    }

    fn input(&self) -> Input {
        Input::Layer
    }

    fn layer(&self, tar: &mut LayerTar, out: &mut dyn Sink) -> Result<Made> {
        out.output(Role::Image)?;
        let mut builder = LayerTreeBuilder::<()>::within(tar.limits().tree.clone());
        while let Some(entry) = tar.next_entry()? {
            builder.insert(entry, |_, _| Ok(()))?;
        }
        let (here, changed) = &*self.here;
        let mut count = here.lock().unwrap();
        *count += 1;
        changed.notify_all();
        drop(changed.wait_timeout_while(count, self.patience, |count| *count % LAYERS != 0).unwrap());
        builder.finish().map(|_| Made::default())
    }
}

/// A pull that converts all layers at once, and then all layers out of the store.
async fn materialize(place: &str, budget: &TreeBudget, patience: Duration) {
    let limits = LayerLimits { tree: TreeLimits::of(10 * MIB), ..LayerLimits::default() };
    for is_pulled in [true, false] {
        let store = tempfile::tempdir_in(place).unwrap();
        let images = Images::open(store.path().join("store")).await.unwrap();
        let together: Box<dyn Materializer> = Box::new(Together { here: Arc::default(), patience });
        let options = |materializes: bool| PullOptions {
            budget: budget.clone(),
            concurrency: LAYERS,
            limits: limits.clone(),
            materializer: materializes.then(|| together.clone()),
            platform: "linux/amd64".parse().unwrap(),
            ..PullOptions::default()
        };
        let image = images.pull(&format!("oci:{place}/image:latest"), options(is_pulled)).await.unwrap();
        let (formats, options) = (Materializers::none(), options(false));
        let source = images.source(&image);
        let made =
            plyfold::materialize(&source, &images.cache(), &*together, &formats, &options).await.unwrap();
        assert!(made.files.len() == LAYERS && made.files.iter().all(|file| file.cached == is_pulled));
    }
}

//! What several hostile layers take together, in a process whose peak is measured.

use std::env;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use plyfold::layer::{LayerLimits, LayerTar, TreeBudget, TreeLimits};
use plyfold::tree::LayerTreeBuilder;
use plyfold::{Format, Images, Input, Made, Materializer, Materializers, PullOptions, Result, Role, Sink};
use plyfold_conformance::samples::{LayerBuilder, of_layers, write_layout};

use super::peak;

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

#[test]
fn layers_that_are_converted_together_share_a_budget() {
    if let Ok(place) = env::var(PLACE) {
        let budget = env::var(BUDGET).unwrap().parse().unwrap();
        // Those that share too little memory never meet.
        let patience = if budget < LAYERS as u64 * MIB { 200 } else { 20_000 };
        let (budget, patience) = (TreeBudget::new(budget), Duration::from_millis(patience));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(materialize(&place, &budget, patience));
        return peak::tell();
    }
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_str().unwrap();
    let layers: Vec<_> = (0..LAYERS).map(hostile).collect();
    write_layout(&dir.path().join("image"), &[("latest".to_owned(), &of_layers("hostile", &layers))])
        .unwrap();
    let test = "memory::layers_that_are_converted_together_share_a_budget";
    let peak = |budget: u64| peak::of(test, &[(PLACE, place), (BUDGET, &budget.to_string())], |_| ());
    let (shared, each_its_own) = (peak(4 * MIB), peak(1024 * MIB));
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

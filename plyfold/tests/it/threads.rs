//! How many threads a pull with conversions has, in a process of its own.

use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use plyfold::layer::LayerTar;
use plyfold::{Format, Images, Input, Made, Materializer, PullOptions, Result, Role, Sink};
use plyfold_conformance::samples::{LayerBuilder, write_layout};

use super::sample::of_layers;

/// Layers of the image, and how many of them are pulled at once.
const LAYERS: usize = 12;
const AT_ONCE: usize = 3;
/// Of one layer: the store's writer, inflater and materializer.
const EACH: usize = 3;
/// More than all queues of a layer hold behind what is read before the threads are counted.
const SIZE: usize = 16 << 20;
/// More than is inflated without a thread of its own.
const READ: usize = 5 << 20;
/// Says to the test that it is the process that is looked at.
const PLACE: &str = "PLYFOLD_THREADS_PLACE";

/// Threads of this process, those of the runtime and those that wait for work apart.
fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| !["tokio-rt", "plyfold-idle"].iter().any(|other| name.starts_with(other))).collect()
}

/// Waits in the middle of a layer until as many are there, and then for the threads of layers that are done to end.
#[derive(Clone, Debug)]
struct Together {
    before: usize,
    arrived: Arc<(Mutex<usize>, Condvar)>,
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
        tar.next_entry()?.unwrap();
        tar.copy_data(READ as u64, |_| Ok(()))?;
        let (arrived, changed) = &*self.arrived;
        let mut count = arrived.lock().unwrap();
        *count += 1;
        let wanted = count.next_multiple_of(AT_ONCE);
        changed.notify_all();
        if *count < wanted {
            let ten = Duration::from_secs(10);
            let (count, _) = changed.wait_timeout_while(count, ten, |count| *count < wanted).unwrap();
            assert!(*count >= wanted, "{AT_ONCE} layers are not pulled at once");
            return Ok(Made::default());
        }
        // The others hold their layers as long as this one has the lock.
        let start = Instant::now();
        while threads().len() != self.before + EACH * AT_ONCE {
            assert!(start.elapsed() < Duration::from_secs(10), "{:?}", threads());
            thread::sleep(Duration::from_millis(1));
        }
        Ok(Made::default())
    }
}

#[test]
fn layers_have_few_threads_each_and_those_that_wait_have_none() {
    if let Ok(place) = env::var(PLACE) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(pull(&place));
    }
    let dir = tempfile::tempdir().unwrap();
    let layers: Vec<_> = (0..LAYERS)
        .map(|number| LayerBuilder::new().file(number.to_string(), 0o644, &vec![0; SIZE]).finish())
        .collect();
    write_layout(&dir.path().join("image"), &[("latest".to_owned(), &of_layers(&layers))]).unwrap();
    let test = "threads::layers_have_few_threads_each_and_those_that_wait_have_none";
    let mut command = Command::new(env::current_exe().unwrap());
    let run = command.args(["--exact", test, "--nocapture"]).env(PLACE, dir.path()).output().unwrap();
    assert!(
        run.status.success(),
        "{} {}",
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr)
    );
}

async fn pull(place: &str) {
    let images = Images::open(format!("{place}/store")).await.unwrap();
    let together = Together { before: threads().len(), arrived: Arc::default() };
    let options = PullOptions {
        concurrency: AT_ONCE,
        materializer: Some(Box::new(together.clone())),
        platform: "linux/amd64".parse().unwrap(),
        ..PullOptions::default()
    };
    images.pull(&format!("oci:{place}/image:latest"), options).await.unwrap();
    assert_eq!(*together.arrived.0.lock().unwrap(), LAYERS);
}

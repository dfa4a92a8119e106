//! A small network, its gradients and its optimizer, in plain f32.
//!
//! Two hidden layers with ReLU, softmax and cross entropy, trained by stochastic gradient descent
//! with momentum. It knows nothing of other peers: between `gradients` and `update` the caller may
//! replace the gradients by an average. Equal weights and equal gradients give equal weights, bit
//! for bit: an update only adds and multiplies.

use super::data::{CLASSES, Image, PIXELS};

/// Width of the hidden layers: gradients are 1.15 MiB, so that they travel as bulk data.
const HIDDEN: usize = 512;
/// Inputs and outputs of each layer.
const LAYERS: [(usize, usize); 3] = [(PIXELS, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, CLASSES)];
const LEARNING_RATE: f32 = 0.05;
const MOMENTUM: f32 = 0.9;

/// Gradients of all layers: weights and biases of the first, of the second, of the third.
pub type Gradients = Vec<Vec<f32>>;

/// Weights and momentum.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    layers: Vec<Layer>,
    /// In the order of [`Gradients`].
    momentum: Gradients,
}

#[derive(Clone, Debug, PartialEq)]
struct Layer {
    inputs: usize,
    outputs: usize,
    /// One row of `outputs` for each input.
    weights: Vec<f32>,
    biases: Vec<f32>,
}

impl Network {
    /// The network that `seed` stands for; the same on every peer.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let layers: Vec<Layer> = LAYERS
            .iter()
            .map(|&(inputs, outputs)| Layer::new(inputs, outputs, &mut random))
            .collect();
        let momentum = zeros(&layers);
        Self { layers, momentum }
    }

    /// Gradients of the loss over `batch`, each image weighing `weight`, and the sum of the losses
    /// of its images, unweighted.
    pub fn gradients(&self, batch: &[&Image], weight: f32) -> (Gradients, f32) {
        let inputs: Vec<f32> = batch.iter().flat_map(|image| image.pixels).collect();
        let mut activations = vec![inputs];
        for (index, layer) in self.layers.iter().enumerate() {
            let is_hidden = index + 1 < self.layers.len();
            let next = layer.forward(&activations[index], batch.len(), is_hidden);
            activations.push(next);
        }
        let mut errors = activations.pop().unwrap_or_default();
        let loss = softmax_errors(&mut errors, batch, weight);
        let mut gradients = zeros(&self.layers);
        for (index, layer) in self.layers.iter().enumerate().rev() {
            let activation = &activations[index];
            let (weights, biases) = gradients[2 * index..].split_at_mut(1);
            layer.add_gradients(activation, &errors, (&mut weights[0], &mut biases[0]));
            if index > 0 {
                errors = layer.backward(&errors, activation);
            }
        }
        (gradients, loss)
    }

    /// One step of gradient descent.
    pub fn update(&mut self, gradients: &[Vec<f32>]) {
        let parameters = self
            .layers
            .iter_mut()
            .flat_map(|layer| [&mut layer.weights, &mut layer.biases]);
        for ((weights, momentum), gradient) in parameters.zip(&mut self.momentum).zip(gradients) {
            for ((weight, momentum), gradient) in weights.iter_mut().zip(momentum).zip(gradient) {
                *momentum = MOMENTUM * *momentum + gradient;
                *weight -= LEARNING_RATE * *momentum;
            }
        }
    }

    /// Share of the images that are recognised.
    pub fn accuracy(&self, images: &[Image]) -> f64 {
        let right = images
            .iter()
            .filter(|image| self.recognise(image) == usize::from(image.digit));
        right.count() as f64 / images.len().max(1) as f64
    }

    /// FNV-1a of all weights, value by value, in hexadecimal: peers agree if and, for all practical
    /// purposes, only if their digests do. It owes nothing to the library that it checks.
    pub fn digest(&self) -> String {
        let parameters = self
            .layers
            .iter()
            .flat_map(|layer| layer.weights.iter().chain(&layer.biases));
        let hash = parameters.fold(FNV_OFFSET, |hash, weight| {
            (hash ^ u128::from(weight.to_bits())).wrapping_mul(FNV_PRIME)
        });
        format!("{hash:032x}")
    }

    /// All that training changes, with names: weights, biases and their momentum.
    pub fn entries(&mut self) -> Vec<(String, &mut [f32])> {
        let parameters = self
            .layers
            .iter_mut()
            .enumerate()
            .flat_map(|(index, layer)| {
                [
                    (format!("layer {index} weights"), &mut layer.weights[..]),
                    (format!("layer {index} biases"), &mut layer.biases[..]),
                ]
            });
        let momentum = self.momentum.iter_mut().enumerate();
        let momentum =
            momentum.map(|(index, values)| (format!("momentum {index}"), &mut values[..]));
        parameters.chain(momentum).collect()
    }

    fn recognise(&self, image: &Image) -> usize {
        let mut activation = image.pixels.to_vec();
        for (index, layer) in self.layers.iter().enumerate() {
            activation = layer.forward(&activation, 1, index + 1 < self.layers.len());
        }
        let best = activation
            .iter()
            .enumerate()
            .max_by(|a, b| a.1.total_cmp(b.1));
        best.map_or(0, |(digit, _)| digit)
    }
}

impl Layer {
    fn new(inputs: usize, outputs: usize, random: &mut Random) -> Self {
        // He's range: the activations keep their size from layer to layer.
        let range = (6.0 / inputs as f32).sqrt();
        let weights = (0..inputs * outputs)
            .map(|_| range * random.next_signed())
            .collect();
        Self {
            inputs,
            outputs,
            weights,
            biases: vec![0.0; outputs],
        }
    }

    /// Row by row of `inputs`, which holds `rows` of them. The loop over the weights is outside, so
    /// that each row of weights is read once.
    fn forward(&self, inputs: &[f32], rows: usize, is_hidden: bool) -> Vec<f32> {
        let mut outputs = self.biases.repeat(rows);
        for (index, weights) in self.weights.chunks_exact(self.outputs).enumerate() {
            for (row, output) in outputs.chunks_exact_mut(self.outputs).enumerate() {
                add_scaled(output, weights, inputs[row * self.inputs + index]);
            }
        }
        if is_hidden {
            for output in &mut outputs {
                *output = output.max(0.0);
            }
        }
        outputs
    }

    fn add_gradients(&self, inputs: &[f32], errors: &[f32], sums: (&mut [f32], &mut [f32])) {
        let (weights, biases) = sums;
        for (index, weights) in weights.chunks_exact_mut(self.outputs).enumerate() {
            for (row, error) in errors.chunks_exact(self.outputs).enumerate() {
                add_scaled(weights, error, inputs[row * self.inputs + index]);
            }
        }
        for error in errors.chunks_exact(self.outputs) {
            add_scaled(biases, error, 1.0);
        }
    }

    /// Errors of the layer before, whose activations were `inputs`.
    fn backward(&self, errors: &[f32], inputs: &[f32]) -> Vec<f32> {
        let mut before = vec![0.0; inputs.len()];
        for (index, weights) in self.weights.chunks_exact(self.outputs).enumerate() {
            for (row, error) in errors.chunks_exact(self.outputs).enumerate() {
                let place = row * self.inputs + index;
                // ReLU passes errors on only where it passed the value on.
                if inputs[place] > 0.0 {
                    before[place] = dot(weights, error);
                }
            }
        }
        before
    }
}

/// Bytes of all gradients together.
pub fn gradient_bytes() -> usize {
    let elements = LAYERS
        .iter()
        .map(|(inputs, outputs)| (inputs + 1) * outputs);
    elements.sum::<usize>() * size_of::<f32>()
}

/// Numbers that look random, for first weights and for the order of images.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence that `seed` stands for.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (SplitMix64).
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// The next number below `end`, which is small.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap_or(0)
    }

    /// The next number from 0 to 1.
    pub fn next_share(&mut self) -> f64 {
        (self.next() >> 40) as f64 / f64::from(1 << 24)
    }

    fn next_signed(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Replaces the outputs of the last layer by their errors; the sum of the losses.
fn softmax_errors(outputs: &mut [f32], batch: &[&Image], weight: f32) -> f32 {
    let mut loss = 0.0;
    for (output, image) in outputs.chunks_exact_mut(CLASSES).zip(batch) {
        let largest = output.iter().copied().fold(f32::MIN, f32::max);
        for value in output.iter_mut() {
            *value = (*value - largest).exp();
        }
        let sum: f32 = output.iter().sum();
        let right = usize::from(image.digit);
        loss -= (output[right] / sum).max(f32::MIN_POSITIVE).ln();
        for value in output.iter_mut() {
            *value *= weight / sum;
        }
        output[right] -= weight;
    }
    loss
}

fn zeros(layers: &[Layer]) -> Gradients {
    let lengths = layers
        .iter()
        .flat_map(|layer| [layer.weights.len(), layer.biases.len()]);
    lengths.map(|length| vec![0.0; length]).collect()
}

fn add_scaled(sums: &mut [f32], values: &[f32], scale: f32) {
    if scale == 0.0 {
        return;
    }
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += scale * value;
    }
}

/// In sixteen partial sums, which the compiler keeps in vector registers.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const WIDTH: usize = 16;
    let mut sums = [0.0; WIDTH];
    let (a, a_rest) = a.as_chunks::<WIDTH>();
    let (b, b_rest) = b.as_chunks::<WIDTH>();
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

const FNV_OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

#[cfg(test)]
mod tests {
    use super::super::data::Digits;
    use super::super::schedule::Schedule;
    use super::*;

    #[test]
    fn gradients_are_more_than_a_mebibyte_in_several_buffers() {
        let gradients = Network::new(1).momentum;
        assert_eq!(gradients.len(), 6);
        assert_eq!(gradients.concat().len() * 4, gradient_bytes());
        assert!(gradient_bytes() >= 1 << 20);
    }

    #[test]
    fn gradients_agree_with_differences_of_the_loss() {
        let digits = Digits::load().unwrap();
        let batch: Vec<&Image> = digits.train[..4].iter().collect();
        let network = Network::new(5);
        let (gradients, _) = network.gradients(&batch, 1.0);
        let loss = |network: &Network| f64::from(network.gradients(&batch, 1.0).1);
        for (layer, place) in [
            (0, 20 * HIDDEN + 3),
            (1, 7 * HIDDEN + 9),
            (2, 33 * CLASSES + 4),
        ] {
            let step = 1e-2_f32;
            let mut more = network.clone();
            more.layers[layer].weights[place] += step;
            let mut less = network.clone();
            less.layers[layer].weights[place] -= step;
            let slope = (loss(&more) - loss(&less)) / f64::from(2.0 * step);
            let gradient = f64::from(gradients[2 * layer][place]);
            assert!(
                (slope - gradient).abs() < 0.02 * gradient.abs() + 2e-3,
                "{slope} {gradient}"
            );
        }
    }

    #[test]
    fn shards_of_a_batch_add_up_to_the_whole_batch() {
        let digits = Digits::load().unwrap();
        let batch: Vec<&Image> = digits.train[..8].iter().collect();
        let network = Network::new(5);
        let (whole, loss) = network.gradients(&batch, 1.0);
        let (first, first_loss) = network.gradients(&batch[..3], 1.0);
        let (second, second_loss) = network.gradients(&batch[3..], 1.0);
        assert!((loss - first_loss - second_loss).abs() < 1e-4);
        for ((whole, first), second) in whole.iter().zip(&first).zip(&second) {
            for ((whole, first), second) in whole.iter().zip(first).zip(second) {
                assert!((whole - first - second).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn one_process_learns_the_digits() {
        let digits = Digits::load().unwrap();
        let mut network = Network::new(42);
        let schedule = Schedule::new(42, 12, digits.train.len());
        for step in 0..schedule.steps() {
            let batch: Vec<&Image> = schedule
                .shard(step, 0, 1)
                .iter()
                .map(|&index| &digits.train[index])
                .collect();
            let (gradients, _) = network.gradients(&batch, 1.0 / batch.len() as f32);
            network.update(&gradients);
        }
        let accuracy = network.accuracy(&digits.test);
        assert!(accuracy >= 0.95, "{accuracy}");
    }

    #[test]
    fn the_entries_are_all_of_the_network() {
        let mut network = Network::new(3);
        network.momentum[5][2] = 7.0;
        let mut other = Network::new(4);
        for ((name, from), (other_name, to)) in network.entries().into_iter().zip(other.entries()) {
            assert_eq!(name, other_name);
            to.copy_from_slice(from);
        }
        assert_eq!(other, network);
    }

    #[test]
    fn equal_seeds_give_equal_digests() {
        assert_eq!(Network::new(3).digest(), Network::new(3).digest());
        assert_ne!(Network::new(3).digest(), Network::new(4).digest());
    }
}

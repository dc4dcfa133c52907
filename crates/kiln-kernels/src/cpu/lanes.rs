//! Reusable buffers for operands and intermediate results.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use aligned_vec::{AVec, ConstAlign};

use super::Element;

type Memory = AVec<u8, ConstAlign<64>>;

/// Unused buffers. Operands are packed for each product and dropped after it. If their memory were freed in between, other
/// allocations would fragment it, and the system would clear it again.
struct Spare {
    pieces: Vec<Memory>,
    /// The largest number of buffers to keep.
    most: usize,
}

/// Large buffers, from all threads.
static LARGE: Mutex<Spare> = Mutex::new(Spare { pieces: Vec::new(), most: 3 });

thread_local! {
    /// Small buffers that this thread dropped.
    static SMALL: RefCell<Spare> = const { RefCell::new(Spare { pieces: Vec::new(), most: 8 }) };
}

/// The smallest size of a large buffer, in bytes.
const LEAST_LARGE: usize = 1 << 20;

impl Spare {
    /// Takes the smallest buffer that is large enough.
    fn take(&mut self, bytes: usize) -> Option<Memory> {
        let fitting = self.pieces.iter().enumerate().filter(|(_, memory)| memory.len() >= bytes);
        let (at, _) = fitting.min_by_key(|(_, memory)| memory.len())?;
        Some(self.pieces.swap_remove(at))
    }

    fn put(&mut self, memory: Memory) {
        self.pieces.push(memory);
        if self.pieces.len() > self.most {
            // The largest buffers fit every length.
            let smallest = self.pieces.iter().enumerate().min_by_key(|(_, memory)| memory.len());
            let (smallest, _) = smallest.expect("one was just put there");
            self.pieces.swap_remove(smallest);
        }
    }
}

/// Values that are aligned to a cache line.
#[derive(Debug)]
pub struct Lanes<E> {
    /// Never shortened, so that it is cleared only once.
    memory: Memory,
    /// The number of bytes in use.
    bytes: usize,
    element: PhantomData<E>,
}

impl<E: Element> Lanes<E> {
    /// Creates a buffer of `len` values with arbitrary contents.
    pub fn any(len: usize) -> Self {
        let bytes = len * size_of::<E>();
        let spare = match bytes {
            0 => Some(Memory::new(64)),
            LEAST_LARGE.. => LARGE.lock().unwrap_or_else(PoisonError::into_inner).take(bytes),
            _ => SMALL.with_borrow_mut(|spare| spare.take(bytes)),
        };
        let new = || {
            let mut memory = Memory::with_capacity(64, bytes);
            memory.resize(bytes, 0);
            memory
        };
        Self { memory: spare.unwrap_or_else(new), bytes, element: PhantomData }
    }

    /// Copies `values`.
    pub fn copied(values: &[E]) -> Self {
        let mut lanes = Self::any(values.len());
        lanes.copy_from_slice(values);
        lanes
    }

    /// Creates a buffer of `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let mut lanes = Self::any(len);
        lanes.fill(E::default());
        lanes
    }
}

impl<E> Drop for Lanes<E> {
    fn drop(&mut self) {
        let memory = std::mem::replace(&mut self.memory, Memory::new(64));
        match memory.len() {
            0 => {}
            LEAST_LARGE.. => LARGE.lock().unwrap_or_else(PoisonError::into_inner).put(memory),
            // The buffer is freed if the thread is ending.
            _ => drop(SMALL.try_with(|spare| spare.borrow_mut().put(memory))),
        }
    }
}

impl<E: Element> Deref for Lanes<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        bytemuck::cast_slice(&self.memory[..self.bytes])
    }
}

impl<E: Element> DerefMut for Lanes<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        bytemuck::cast_slice_mut(&mut self.memory[..self.bytes])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_zeros_in_memory_used_again() {
        for len in [LEAST_LARGE, 3 * LEAST_LARGE, LEAST_LARGE / 8, 10, 0] {
            for _ in 0..2 {
                let mut lanes = Lanes::<f32>::any(len);
                assert_eq!(lanes.len(), len);
                lanes.fill(7.0);
                drop(lanes);
                assert!(Lanes::<f32>::zeroed(len).iter().all(|value| *value == 0.0), "{len}");
            }
        }
    }

    #[test]
    fn the_largest_few_are_kept() {
        let mut spare = Spare { pieces: Vec::new(), most: 2 };
        for len in [10, 30, 20] {
            spare.put(Memory::from_slice(64, &vec![0; len]));
        }
        let mut take = |bytes| spare.take(bytes).map(|memory| memory.len());
        assert_eq!([take(31), take(5), take(5), take(5)], [None, Some(20), Some(30), None]);
    }
}

//! Memory of packed operands, used again.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use aligned_vec::{AVec, ConstAlign};

use super::Element;

type Memory = AVec<u8, ConstAlign<64>>;

/// Memory of lanes that are gone, for the next ones. Operands are packed for each product and dropped after it: memory given back
/// in between is cut into pieces by what is allocated meanwhile, and cleared once more by the system.
static SPARE: Mutex<Vec<Memory>> = Mutex::new(Vec::new());

/// How many pieces are kept.
const MOST_SPARE: usize = 2;

/// Smaller ones are not worth a lock.
const LEAST: usize = 1 << 16;

/// Values on a cache line's boundary.
#[derive(Debug)]
pub struct Lanes<E> {
    memory: Memory,
    element: PhantomData<E>,
}

impl<E: Element> Lanes<E> {
    /// Any values.
    pub fn any(len: usize) -> Self {
        let bytes = len * size_of::<E>();
        let mut memory = if bytes < LEAST { Memory::new(64) } else { spare(bytes) };
        memory.resize(bytes, 0);
        Self { memory, element: PhantomData }
    }

    /// These values.
    pub fn copied(values: &[E]) -> Self {
        let mut lanes = Self::any(values.len());
        lanes.copy_from_slice(values);
        lanes
    }

    /// Zeros.
    pub fn zeroed(len: usize) -> Self {
        let mut lanes = Self::any(len);
        lanes.fill(E::default());
        lanes
    }
}

/// The smallest spare memory that is large enough, or none.
fn spare(bytes: usize) -> Memory {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    let fitting = spare.iter().enumerate().filter(|(_, memory)| memory.capacity() >= bytes);
    match fitting.min_by_key(|(_, memory)| memory.capacity()) {
        Some((at, _)) => spare.swap_remove(at),
        None => Memory::with_capacity(64, bytes),
    }
}

impl<E> Drop for Lanes<E> {
    fn drop(&mut self) {
        let memory = std::mem::replace(&mut self.memory, Memory::new(64));
        if memory.capacity() < LEAST {
            return;
        }
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        spare.push(memory);
        if spare.len() > MOST_SPARE {
            // The largest serve every length.
            spare.sort_by_key(|memory| std::cmp::Reverse(memory.capacity()));
            spare.truncate(MOST_SPARE);
        }
    }
}

impl<E: Element> Deref for Lanes<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        bytemuck::cast_slice(&self.memory)
    }
}

impl<E: Element> DerefMut for Lanes<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        bytemuck::cast_slice_mut(&mut self.memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_zeros_in_memory_used_again() {
        for len in [LEAST, 3 * LEAST, LEAST / 2, 10, 0] {
            for _ in 0..2 {
                let mut lanes = Lanes::<f32>::any(len);
                assert_eq!(lanes.len(), len);
                lanes.fill(7.0);
                drop(lanes);
                assert!(Lanes::<f32>::zeroed(len).iter().all(|value| *value == 0.0), "{len}");
            }
        }
        assert!(SPARE.lock().unwrap_or_else(PoisonError::into_inner).len() <= MOST_SPARE);
    }
}

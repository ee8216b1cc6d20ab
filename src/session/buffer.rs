//! Where bytes are between two sockets.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// Size of the one buffer of a worker, in bytes. 16 KiB splits a 16 KiB value in two; exactly 64 KiB costs
/// twice the processor time (a write of it leaves a tiny segment behind a full one).
const BUFFER_SIZE: usize = 32 * 1024;

/// The buffer all sessions of a worker read into. Never held across an await, so an idle session owns none.
pub(crate) type Buffer = Rc<RefCell<Box<Room>>>;

/// Begins at a page: where the kernel copies to and from any other address, a reply of 16 KiB costs up to 7 % more processor
/// time, by where the allocator happened to put it.
#[derive(Debug)]
#[repr(align(4096))]
pub(crate) struct Room([u8; BUFFER_SIZE]);

impl Deref for Room {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Room {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

pub(crate) fn new_buffer() -> Buffer {
    Rc::new(RefCell::new(Box::new(Room([0; BUFFER_SIZE]))))
}

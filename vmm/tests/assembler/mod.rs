//! Just enough of an assembler for guests in 64-bit mode, and the ELF file around them.

use std::fs::File;
use std::io::Write;

/// Where a kernel's addresses begin; what is not linked there is taken for a program.
const KERNEL_ADDRESSES: u64 = 0xffff_ffff_8000_0000;

/// Where the guest's code is, and what it uses for itself.
const CODE_AT: u32 = 0x20_0000;
const PAGE_DIRECTORY: u32 = 0x30_0000;
const INTERRUPT_TABLE: u32 = 0x31_0000;
const INTERRUPT_POINTER: u32 = 0x31_1000;
const FLAG: u32 = 0x31_2000;
const STACK: u32 = 0x32_0000;

/// The code segment that the machine starts with.
const CODE_SELECTOR: u32 = 0x10;
/// Doorbell codes for a check that failed.
const WRONG: u8 = 99;

const DOORBELL: u16 = hull_vmm::DOORBELL_PORT;

/// Instructions so far.
pub(crate) struct Code {
    bytes: Vec<u8>,
    /// Where the address of the interrupt handler has to be filled in.
    handler_at: Option<usize>,
}

impl Code {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), handler_at: None }
    }

    /// Other code behind it, which must not have an interrupt handler.
    pub(crate) fn then(self, other: Self) -> Self {
        let Self { bytes, handler_at: None } = other else { panic!("its handler would move") };
        self.emit(&bytes)
    }

    fn emit(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    fn emit_u32(self, value: u32) -> Self {
        self.emit(&value.to_le_bytes())
    }

    /// `mov ebx, address`
    fn point(self, address: u32) -> Self {
        self.emit(&[0xbb]).emit_u32(address)
    }

    /// `mov dword [address], value`
    pub(crate) fn store(self, address: u32, value: u32) -> Self {
        self.point(address).emit(&[0xc7, 0x03]).emit_u32(value)
    }

    /// Rings for a queue of the first virtio device, and goes on once the device has answered: a write to the status
    /// register returns when whatever was asked of the device before is done. This one is no step of the handshake.
    pub(crate) fn ring(self, queue: u32) -> Self {
        self.store(0xd000_0050, queue).store(0xd000_0070, 0x10)
    }

    /// Powers off with [`WRONG`] unless the 32 bits at `address` are `value`.
    pub(crate) fn expect(self, address: u32, value: u32) -> Self {
        // mov eax, [rbx]; cmp eax, value
        self.point(address).emit(&[0x8b, 0x03, 0x3d]).emit_u32(value).unless_equal()
    }

    /// The same for a port.
    pub(crate) fn expect_port(self, port: u16, value: u8) -> Self {
        // in al, dx; cmp al, value
        self.port(port).emit(&[0xec, 0x3c, value]).unless_equal()
    }

    /// Runs `body`, which has no loop of its own, so many times.
    pub(crate) fn repeat(self, count: u32, body: Self) -> Self {
        let len = i32::try_from(body.bytes.len()).unwrap();
        // mov r12d, count; body; dec r12d; jnz body
        let code = self.emit(&[0x41, 0xbc]).emit_u32(count).then(body).emit(&[0x41, 0xff, 0xcc]);
        code.emit(&[0x0f, 0x85]).emit_u32((-len - 9).cast_unsigned())
    }

    /// Runs `body` for ever.
    pub(crate) fn forever(self, body: Self) -> Self {
        let len = i32::try_from(body.bytes.len()).unwrap();
        self.then(body).emit(&[0xe9]).emit_u32((-len - 5).cast_unsigned())
    }

    /// `add word [address], value`
    pub(crate) fn add16(self, address: u32, value: u16) -> Self {
        self.point(address).emit(&[0x66, 0x81, 0x03]).emit(&value.to_le_bytes())
    }

    /// `add dword [address], value`
    pub(crate) fn add(self, address: u32, value: u32) -> Self {
        self.point(address).emit(&[0x81, 0x03]).emit_u32(value)
    }

    fn unless_equal(self) -> Self {
        let wrong = Self::new().power_off(WRONG).bytes;
        // je behind it
        self.emit(&[0x74, u8::try_from(wrong.len()).unwrap()]).emit(&wrong)
    }

    /// `mov dx, port`
    fn port(self, port: u16) -> Self {
        self.emit(&[0x66, 0xba]).emit(&port.to_le_bytes())
    }

    pub(crate) fn out(self, port: u16, value: u8) -> Self {
        // mov al, value; out dx, al
        self.port(port).emit(&[0xb0, value, 0xee])
    }

    pub(crate) fn power_off(self, code: u8) -> Self {
        self.out(DOORBELL, code)
    }

    /// Reads and writes each port from `first` to before `end`.
    pub(crate) fn scan_ports(self, first: u32, end: u32) -> Self {
        // mov edx, first; again: in al, dx; out dx, al; inc edx; cmp edx, end; jb again
        self.emit(&[0xba])
            .emit_u32(first)
            .emit(&[0xec, 0xee, 0xff, 0xc2, 0x81, 0xfa])
            .emit_u32(end)
            .emit(&[0x72, 0xf4])
    }

    /// The same 2 and 4 bytes wide.
    pub(crate) fn scan_ports_wide(self, first: u32, end: u32) -> Self {
        // mov edx, first; again: in ax, dx; out dx, ax; in eax, dx; out dx, eax; inc edx; cmp edx, end; jb again
        self.emit(&[0xba])
            .emit_u32(first)
            .emit(&[0x66, 0xed, 0x66, 0xef, 0xed, 0xef, 0xff, 0xc2, 0x81, 0xfa])
            .emit_u32(end)
            .emit(&[0x72, 0xf0])
    }

    /// Loads and stores all ones at `address`, 1, 2, 4 and 8 bytes wide.
    pub(crate) fn touch(self, address: u32) -> Self {
        // mov al, [rbx]; mov ax, [rbx]; mov eax, [rbx]; mov rax, [rbx]
        self.point(address)
            .emit(&[0x8a, 0x03, 0x66, 0x8b, 0x03, 0x8b, 0x03, 0x48, 0x8b, 0x03])
            // xor eax, eax; dec rax; mov [rbx], al; mov [rbx], ax; mov [rbx], eax; mov [rbx], rax
            .emit(&[0x31, 0xc0, 0x48, 0xff, 0xc8, 0x88, 0x03, 0x66, 0x89, 0x03, 0x89, 0x03, 0x48, 0x89, 0x03])
    }

    /// `mov ecx, index; rdmsr; wrmsr`
    pub(crate) fn touch_msr(self, index: u32) -> Self {
        self.emit(&[0xb9]).emit_u32(index).emit(&[0x0f, 0x32, 0x0f, 0x30])
    }

    /// `mov ecx, index; xor eax, eax; dec eax; mov edx, eax; wrmsr`
    pub(crate) fn fill_msr(self, index: u32) -> Self {
        self.emit(&[0xb9]).emit_u32(index).emit(&[0x31, 0xc0, 0xff, 0xc8, 0x89, 0xc2, 0x0f, 0x30])
    }

    /// `mov eax, leaf; mov ecx, -1; cpuid`
    pub(crate) fn cpuid(self, leaf: u32) -> Self {
        self.emit(&[0xb8]).emit_u32(leaf).emit(&[0xb9]).emit_u32(u32::MAX).emit(&[0x0f, 0xa2])
    }

    /// `vmmcall` with all registers as they are.
    pub(crate) fn hypercall(self) -> Self {
        self.emit(&[0x0f, 0x01, 0xd9])
    }

    /// `again: hlt; jmp again`, with interrupts off.
    pub(crate) fn halt(self) -> Self {
        self.emit(&[0xf4, 0xeb, 0xfd])
    }

    pub(crate) fn undefined(self) -> Self {
        self.emit(&[0x0f, 0x0b])
    }

    pub(crate) fn spin(self) -> Self {
        self.emit(&[0xeb, 0xfe])
    }

    /// Maps the 4th GiB where the devices are: 2 MiB each for virtio, the IOAPIC and the local APIC.
    pub(crate) fn map_devices(self) -> Self {
        // Entry 3 of the machine's level 3 table, present and writable.
        let mut code = self.store(0xa018, PAGE_DIRECTORY | 3);
        for address in [0xd000_0000_u32, 0xfec0_0000, 0xfee0_0000] {
            let entry = PAGE_DIRECTORY + ((address - 0xc000_0000) >> 21) * 8;
            // A large page, uncached.
            code = code.store(entry, address | 0x93);
        }
        code
    }

    /// Fills the gate of `vector` and loads the table; the handler is `handler_sets_flag`.
    pub(crate) fn interrupt_table(mut self, vector: u32) -> Self {
        let gate = INTERRUPT_TABLE + vector * 16;
        // An interrupt gate, present; the handler is below 4 GiB.
        self = self.store(gate + 4, 0x8e00).store(INTERRUPT_POINTER, 0x0fff | (INTERRUPT_TABLE << 16));
        self = self.store(INTERRUPT_POINTER + 4, INTERRUPT_TABLE >> 16);
        // mov eax, handler; mov ebx, gate; mov [rbx], ax; shr eax, 16; mov [rbx + 6], ax
        self = self.emit(&[0xb8]);
        self.handler_at = Some(self.bytes.len());
        self =
            self.emit_u32(0).point(gate).emit(&[0x66, 0x89, 0x03, 0xc1, 0xe8, 0x10, 0x66, 0x89, 0x43, 0x06]);
        // mov word [rbx + 2], selector
        self = self.emit(&[0x66, 0xc7, 0x43, 0x02, CODE_SELECTOR as u8, 0]);
        // mov ebx, pointer; lidt [rbx]; mov esp, stack
        self.point(INTERRUPT_POINTER).emit(&[0x0f, 0x01, 0x1b, 0xbc]).emit_u32(STACK)
    }

    /// Enables the local APIC: spurious vector register.
    pub(crate) fn local_apic_on(self) -> Self {
        self.store(0xfee0_00f0, 0x1ff)
    }

    /// `sti`
    pub(crate) fn interrupts_on(self) -> Self {
        self.emit(&[0xfb])
    }

    /// Enables interrupts and waits until the handler has set the flag.
    pub(crate) fn wait_for_interrupt(self) -> Self {
        // sti; mov ebx, flag; again: cmp dword [rbx], 0; je again; cli
        self.emit(&[0xfb]).point(FLAG).emit(&[0x83, 0x3b, 0x00, 0x74, 0xfb, 0xfa])
    }

    /// The interrupt handler; comes last.
    pub(crate) fn handler_sets_flag(mut self) -> Self {
        let at = CODE_AT + u32::try_from(self.bytes.len()).unwrap();
        let hole = self.handler_at.expect("the interrupt table comes first");
        self.bytes[hole..hole + 4].copy_from_slice(&at.to_le_bytes());
        // push rbx; flag = 1; end of interrupt; pop rbx; iretq
        self.emit(&[0x53]).store(FLAG, 1).store(0xfee0_00b0, 0).emit(&[0x5b, 0x48, 0xcf])
    }
}

/// A kernel file: code, and data at fixed addresses.
pub(crate) struct Guest {
    segments: Vec<(u32, Vec<u8>)>,
}

impl Guest {
    pub(crate) fn new(code: Code) -> Self {
        Self { segments: vec![(CODE_AT, code.bytes)] }
    }

    pub(crate) fn data(&mut self, at: u32, bytes: &[u8]) {
        self.segments.push((at, bytes.to_vec()));
    }

    /// Descriptor `index` of the table at `rings`: address, length, flags, next.
    pub(crate) fn descriptor(
        &mut self,
        rings: u32,
        index: u16,
        (at, len, flags, next): (u32, u32, u16, u16),
    ) {
        let mut bytes = u64::from(at).to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.data(rings + u32::from(index) * 16, &bytes);
    }

    /// Makes the chains available in the ring at `rings + 0x1000`.
    pub(crate) fn available(&mut self, rings: u32, heads: &[u16]) {
        let count = u16::try_from(heads.len()).unwrap();
        let words = [&[0, count], heads].concat();
        let bytes: Vec<u8> = words.into_iter().flat_map(u16::to_le_bytes).collect();
        self.data(rings + 0x1000, &bytes);
    }

    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segments.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// The ELF file: header, a program header for each segment, the segments.
    pub(crate) fn file(&self) -> File {
        let count = u16::try_from(self.segments.len()).unwrap();
        let mut offset = 64 + 56 * u64::from(count);
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(16, 0);
        elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        elf.extend(u64::from(CODE_AT).to_le_bytes());
        elf.extend(64_u64.to_le_bytes());
        elf.extend([0; 14]);
        elf.extend(56_u16.to_le_bytes());
        elf.extend(count.to_le_bytes());
        elf.resize(64, 0);
        for (at, bytes) in &self.segments {
            let size = bytes.len() as u64;
            // PT_LOAD, all permissions; offset, virtual and physical address, sizes, alignment.
            elf.extend([1, 0, 0, 0, 7, 0, 0, 0]);
            for word in [offset, KERNEL_ADDRESSES + u64::from(*at), u64::from(*at), size, size, 1] {
                elf.extend(word.to_le_bytes());
            }
            offset += size;
        }
        self.segments.iter().for_each(|(_, bytes)| elf.extend(bytes));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&elf).unwrap();
        file
    }
}

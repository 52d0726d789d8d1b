//! `true`, and with an argument `sleep infinity`: no library, no memory but the stack that the kernel gives it.

#![no_std]
#![no_main]

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// The stack begins with argc.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "cmp qword ptr [rsp], 1",
    "jle 3f",
    "2: mov eax, 34", // pause
    "syscall",
    "jmp 2b",
    "3: xor edi, edi",
    "mov eax, 231", // exit_group
    "syscall",
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "ldr x0, [sp]",
    "cmp x0, #1",
    "b.le 3f",
    "2: mov x0, #0",
    "mov x1, #0",
    "mov x2, #0",
    "mov x3, #0",
    "mov x8, #73", // ppoll of nothing
    "svc #0",
    "b 2b",
    "3: mov x0, #0",
    "mov x8, #94", // exit_group
    "svc #0",
);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What runs in ring 0: as little as can be.  Where a host's KVM has to interpret ring 0 an
 * instruction costs microseconds; ring 3 runs at native speed everywhere.
 */
	.set	CODE0, 0x10		/* as the boot protocol has them */
	.set	DATA0, 0x18
	.set	TSS, 0x20
	.set	DATA3, 0x30 + 3
	.set	CODE3, 0x38 + 3
	.set	IRQ_GATE, 0x40
	.set	APIC_EOI, 0xfee000b0
	.set	TRAMPOLINE, 0x8000
	.set	TSS_AT, 0x1000		/* where nothing else is */
	.set	NOWHERE, 0xe0000000
	.set	MSR_CLOCK, 0x4b564d01	/* MSR_KVM_SYSTEM_TIME_NEW */

	.section .text.start, "ax"
	.code64
	.globl	start
start:
	mov	$pml4, %eax
	mov	%rax, %cr3
	lgdt	gdt_pointer
	lidt	idt_pointer
	mov	$kernel_stack0, %eax
	mov	%rax, TSS_AT + 4
	mov	$TSS, %eax
	ltr	%ax
	mov	%cr4, %rax
	or	$0x600, %eax		/* SSE, for memory copies */
	mov	%rax, %cr4
	mov	%rsi, %rdi		/* the zero page */
	mov	$main, %eax
	mov	$user_stack0, %ecx
	/* To ring 3, with interrupts on and ports allowed. */
to_ring3:
	push	$DATA3
	push	%rcx
	push	$0x3202
	push	$CODE3
	push	%rax
	iretq

	/*
	 * ud2 from ring 3 (not every KVM that interprets takes an int from there): eax = 0 a byte out (dx: port, bl: byte); 1 sleep until the count
	 * of interrupts is no longer rbx; 2 an instruction that this KVM may not emulate; 3 crash; 4 go
	 * on where there is neither memory nor a device, which no KVM can execute; 5 have KVM's clock at clock_info.
	 */
call_gate:
	addq	$2, (%rsp)		/* behind the ud2 */
	cmp	$1, %eax
	je	2f
	ja	4f
	mov	%bl, %al
	out	%al, %dx
	iretq
2:	cmp	%rbx, irq_count
	jne	3f
	sti
	hlt
	cli
	jmp	2b
3:	iretq
4:	cmp	$2, %eax
	ja	5f
	lock cmpxchg16b scratch
	iretq
5:	cmp	$3, %eax
	ja	6f
	lidt	no_idt
	ud2
6:	cmp	$4, %eax
	ja	7f
	mov	$NOWHERE, %eax
	jmp	*%rax
7:	push	%rcx
	push	%rdx
	mov	$MSR_CLOCK, %ecx
	mov	$clock_info + 1, %eax	/* bit 0: it is on */
	xor	%edx, %edx
	wrmsr
	pop	%rdx
	pop	%rcx
	iretq

irq_gate:
	push	%rax
	incq	irq_count
	mov	$APIC_EOI, %eax
	movl	$0, (%rax)
	pop	%rax
	iretq

	/* Any exception of ring 3 is a bug of this program. */
trap:
	mov	$0x505, %edx
	mov	$1, %al
	out	%al, %dx
	hlt
	jmp	trap

	/* The second processor, in real mode, at TRAMPOLINE; copied there. */
	.globl	trampoline, trampoline_end
	.code16
trampoline:
	cli
	xor	%ax, %ax
	mov	%ax, %ds
	lgdtl	TRAMPOLINE + (t_gdt - trampoline)
	mov	%cr0, %eax
	or	$1, %eax
	mov	%eax, %cr0
	ljmpl	$0x08, $(TRAMPOLINE + (t_protected - trampoline))
	.code32
t_protected:
	mov	$0x18, %eax
	mov	%eax, %ds
	mov	%eax, %ss
	mov	%cr4, %eax
	or	$0x620, %eax
	mov	%eax, %cr4
	mov	$pml4, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x100, %eax
	wrmsr
	mov	%cr0, %eax
	or	$0x80000000, %eax
	mov	%eax, %cr0
	ljmp	$CODE0, $second
	.balign	8
t_gdt:	.word	8 * 8 - 1
	.long	gdt
trampoline_end:
	.code64
second:
	mov	$kernel_stack1, %esp
	lidt	idt_pointer
	mov	$second_main, %eax
	mov	$user_stack1, %ecx
	jmp	to_ring3

	.data
	.balign	16
gdt:	.quad	0
	.quad	0x00cf9b000000ffff	/* 08: 32-bit code, for the trampoline */
	.quad	0x00af9b000000ffff	/* 10 */
	.quad	0x00cf93000000ffff	/* 18 */
	.word	0x67, TSS_AT		/* 20: task state */
	.byte	0, 0x89, 0, 0
	.quad	0
	.quad	0x00cff3000000ffff	/* 30: data, ring 3 */
	.quad	0x00affb000000ffff	/* 38: code, ring 3 */
gdt_end:
	.balign	8
gdt_pointer:
	.word	gdt_end - gdt - 1
	.quad	gdt
idt_pointer:
	.word	(IRQ_GATE + 1) * 16 - 1
	.quad	idt
no_idt:	.word	0
	.quad	0
	.balign	32
	.globl	clock_info
clock_info: .fill 32
	.balign	16
scratch: .quad	0, 0
	.globl	irq_count
irq_count: .quad 0

	/* The linker puts start at 2 MiB, and what gates lead to within 64 KiB of it. */
	.macro	gate to, type
	.word	(\to - start) & 0xffff, CODE0
	.byte	0, \type
	.word	0x20
	.quad	0
	.endm
	.balign	16
idt:	.rept	6
	gate	trap, 0x8e
	.endr
	gate	call_gate, 0x8e
	.rept	32 - 7
	gate	trap, 0x8e
	.endr
	.fill	(IRQ_GATE - 32) * 16, 1, 0
	gate	irq_gate, 0x8e

	.section .pages, "aw"
	.balign	4096
	/* The first 4 GiB, in pages of 2 MiB, for ring 3 as well. */
pml4:	.quad	pdpt + 7
	.fill	511, 8, 0
pdpt:	.quad	pd + 7, pd + 0x1007, pd + 0x2007, pd + 0x3007
	.fill	508, 8, 0
	.set	i, 0
pd:	.rept	2048
	.quad	(i << 21) | 0x87
	.set	i, i + 1
	.endr

	.bss
	.balign	16
	.skip	4096
kernel_stack0:
	.skip	4096
kernel_stack1:
	.skip	16384
user_stack0:
	.skip	16384
user_stack1:
	.skip	16

	.section .note.GNU-stack, "", @progbits

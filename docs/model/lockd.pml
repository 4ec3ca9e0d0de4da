/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The locking protocol of docs/LOCKING.md as the code in lockd/ carries it out: three hosts, each
 * with a slot, and two locks, each over one home block.  README.md beside this file says what
 * is left out, and run.sh which configurations and which broken variants are searched.
 *
 * A command is issued (by a host, when its gate was open) and lands (at the device) in two
 * moves, and what its host learns of it is a third.  Anything may happen between: that is how a
 * host freezes between the lease check and the write, how a command is late, and how one
 * that was carried out is reported as failed.
 *
 * Images are unique (every change adds to "sequence"): a compare-and-write lands only if its
 * sector has not changed since its expected image was read.  So the model needs no sequence: a
 * change of a sector takes the effect away from every other command that waits to change it.
 */
#ifndef LOCKS
#define LOCKS	2
#endif
#define HOSTS	3
#define NOBODY	3

/* Faults that one run may contain; run.sh sets them. */
#ifndef CRASHES
#define CRASHES	1	/* hosts that die */
#endif
#ifndef FREEZES
#define FREEZES	1	/* living hosts that miss beats until they are suspected */
#endif
#ifndef JOINS
#define JOINS	0	/* attaches after a crash, a loss or a leave */
#endif
#ifndef LEAVES
#define LEAVES	0	/* detaches */
#endif
#ifndef UNCLEAR
#define UNCLEAR	0	/* commands on lock records given up with their fate open */
#endif

/* HEIR: locks given up for one other host, so many times ("Leaving a lock"); with one lock, not with SHARE. */

/* Rung of the fencing ladder: 1 (A) preempts, 2 (B) waits out a bound, 3 (C) proves nothing. */
#ifndef RUNG
#define RUNG	1
#endif

/* Silence is counted in ticks; a lease lasts while less than LEASE of them are over. */
#define LEASE	1
#ifdef V_NO_MARGIN
#define SUSPECT	(LEASE)
#else
#define SUSPECT	(LEASE + 1)
#endif

/* ---- on disk ---- */

#define FREE	0
#define JOINING	1
#define LIVE	2
#define RECOVERING 3

byte st[HOSTS], gen[HOSTS];		/* slots: enum slot_state, generation */
byte by[HOSTS], bygen[HOSTS];		/* recoverer and its generation */
byte owner[LOCKS], ogen[LOCKS];		/* lock records: who holds it exclusively */
byte journal[HOSTS];			/* a bit for each block that is in it and not at home */

/* ---- in each host's memory ---- */

#define OUT	0
#define ENTERING 1
#define MEMBER	2
byte up[HOSTS];		/* OUT: dead, lost or detached */
byte mygen[HOSTS];
byte cmdgen[HOSTS];	/* for whom its commands are under way: the incarnation before, until fenced */
bit stale_lease[HOSTS];	/* the lease has lapsed by the host's own clock */
bit slow[HOSTS];	/* that clock has lost a tick in this lease: the drift that margin covers */

/* The heartbeat's attempt: FRESH while a lease from its t0 would still be valid. */
#define NONE	0
#define FRESH	1
#define OLD	2
byte beat[HOSTS];	/* under way */
byte landed[HOSTS];	/* landed, and the host does not know yet */

/* One lock at a time is negotiated by a host; what is known of each is in mem. */
#define IDLE	0
#define READ	1	/* the record has been read: held by (seen, seengen) */
#define TAKE	2	/* may be taken: nobody holds it, or somebody stale */
#define TAKING	3	/* compare-and-write under way */
#define TAKEN	4	/* landed */
#define PEEKED	5	/* V_SLOT_FIRST: the slot has been read, the record has not */
#define CLEARING 6	/* record_settle_fate(): compare-and-write under way */
#define DROPPING 7	/* releasing: compare-and-write under way */
#define DROPPED	8	/* landed */
byte pc[HOSTS], at[HOSTS];
#if defined(V_SLOT_FIRST) || defined(V_SLOT_LOOSE)
byte seen[HOSTS], seengen[HOSTS];
bit peeked_free[HOSTS];
#endif

#define NOT	0
#define HELD	1	/* exclusively */
#define OPEN	2	/* lock->unclear: neither held nor free */
#define SHARED	3
#define HALF	4	/* unclear whether it is exclusive still or shared already */
typedef locks { byte mem[LOCKS]; byte late[LOCKS];
#ifdef SHARE
	byte share[LOCKS];	/* on disk: the generation under which the host shares it; 0 */
#endif
};
locks h[HOSTS];		/* late: a forgotten command may still land */
#define LATE_TAKE 1
#define LATE_DROP 2
#define LATE_SHARE 3
#define LATE_GIVE 4

/*
 * HEIR: a record that its owner has left: it says exclusive still, and names who may take it beside
 * the owner.  give: whom the release under way, or a late one, is for.
 */
#ifdef HEIR
byte heir[LOCKS], heirgen[LOCKS];	/* host + 1, its generation; 0: none */
byte give[HOSTS], givegen[HOSTS];
byte gives;
#define is_left(l)	(heir[l] != 0)
#define is_heir(l, i)	(heir[l] == i + 1 && heirgen[l] == mygen[i])
#define SET_HEIR(l, s, g) heir[l] = s; heirgen[l] = g
#define LATE_OF_DROP(i)	(give[i] -> LATE_GIVE : LATE_DROP)
#define GIVE_NOBODY(i)	give[i] = 0; givegen[i] = 0
#else
#define is_left(l)	false
#define is_heir(l, i)	false
#define SET_HEIR(l, s, g) skip
#define LATE_OF_DROP(i)	LATE_DROP
#define GIVE_NOBODY(i)	skip
#endif

/*
 * SHARE: 1 locks are shared by readers as well; 2 those who share one all write (LOCK_MULTI; data
 * only, their map is frozen).  To which mode the compare-and-write under way leads:
 */
#ifdef SHARE
byte to[HOSTS];
#define TO(i, mode)	to[i] = mode
#define to_shared(i)	(to[i] == SHARED)
#define shares(l, i)	(h[i].share[l] != 0)
#define shared_by_others(l, i) \
	((i != 0 && shares(l, 0)) || (i != 1 && shares(l, 1)) || (i != 2 && shares(l, 2)))
#define GIVE_SHARE(l, i, g) h[i].share[l] = g
#else
#define TO(i, mode)	skip
#define to_shared(i)	false
#define shares(l, i)	false
#define shared_by_others(l, i) false
#define GIVE_SHARE(l, i, g) skip
#endif

byte wr[HOSTS];		/* home block + 1 of a write under way; + LOCKS: one of several writers' */
byte rewr[HOSTS];	/* victim * LOCKS + home block + 1 of a write of a replay */

/* Recovery, LOCKING.md's numbers; a joining host recovers its own slot by the same steps. */
#define R_NONE	0
#define R_DUE	1	/* 1: suspected, read, not yet claimed */
#define R_CLAIM	2	/* 2: compare-and-write under way */
#define R_FENCE	3
#define R_CHECK	4	/* fenced; before the replay */
#define R_REPLAY 5
#define R_ADOPT	6
#define R_RETIRE 7
#define R_FREE	8	/* 6: compare-and-write under way */
byte rec[HOSTS], victim[HOSTS], beside[HOSTS];

/* ---- the device and time ---- */

byte silent[HOSTS];	/* ticks since the slot changed */
byte waited[HOSTS];	/* B: ticks since the claim */
bit overdue[HOSTS];	/* B: a tick has passed over commands issued under a lapsed lease */
bit fenced[HOSTS];	/* A: its key is gone; what it issues is refused */
byte crashes, freezes, joins, leaves, unclears;

hidden byte k, n;

#define retired(s, g)	(gen[s] > (g) || (gen[s] == (g) && st[s] == FREE))
#define beats_itself(s)	(st[s] == LIVE || st[s] == JOINING || (st[s] == RECOVERING && by[s] == s))
/* beat_is_ours(). */
#define slot_is_mine(i)	(((st[i] == LIVE || st[i] == JOINING) && gen[i] == mygen[i]) || \
			 (st[i] == RECOVERING && by[i] == i && bygen[i] == mygen[i]))
/* gate_is_valid(), and the device accepts our commands. */
#define gate(i)		(up[i] != OUT && !stale_lease[i] && !fenced[i])
#define works(i)	(up[i] == MEMBER && gate(i))
#ifdef SHARE
#define names(l, i)	((owner[l] == i && ogen[l] == mygen[i]) || h[i].share[l] == mygen[i])
#else
#define names(l, i)	(owner[l] == i && ogen[l] == mygen[i] && !is_left(l))
#endif
#define left_by(l, i)	(owner[l] == i && ogen[l] == mygen[i] && is_left(l))
#define under_way(i)	(wr[i] || rewr[i] || rec[i] == R_CLAIM || rec[i] == R_FREE || \
			 pc[i] == TAKING || pc[i] == CLEARING || pc[i] == DROPPING || \
			 late_any(i))
#if LOCKS > 1
#define late_any(i)	(h[i].late[0] || h[i].late[1])
#else
#define late_any(i)	(h[i].late[0])
#endif

/* Two claims that crossed: each of (s, by[s]) is claimed by the other, and both were silent. */
#define ring(s)	(by[s] != NOBODY && st[by[s]] == RECOVERING && by[by[s]] == s && \
		 silent[s] >= SUSPECT && silent[by[s]] >= SUSPECT)

/*
 * Rung B's bound: nothing issued under a lease outlives it by a whole tick and more, because the
 * watchdog ends a frozen host and the device a command.
 */
#if RUNG == 2
#define too_late(i) (overdue[i] && under_way(i))
#ifdef V_NO_BOUND
#define BOUND	0
#else
#define BOUND	2
#endif
#define waited_out(r) (waited[victim[r]] >= BOUND && \
		       (!beside[r] || waited[beside[r] - 1] >= BOUND))
#else
#define waited_out(r) true
#define too_late(i) false
#define BOUND	0
#endif

/*
 * LIVENESS: who wants the lock says so in its slot (want.c), and then waits its turn: a want of a
 * host that beats and is older goes first (want_older()).  A holder writes once.  For safety
 * all that does not matter: anybody tries at any time.
 */
#ifdef LIVENESS
bit want[HOSTS], quiet[HOSTS], used[HOSTS];
byte older[HOSTS];	/* a bit for each host whose want was there before ours */

#define beating(k)	(up[k] == MEMBER && st[k] == LIVE && silent[k] == 0)
#define after_others(i)	(((older[i] & 1) && beating(0)) || ((older[i] & 2) && beating(1)) || \
			 ((older[i] & 4) && beating(2)))
#ifdef V_OUT_OF_TURN
#define MAY_SEEK(i, l)	want[i]
#else
#define MAY_SEEK(i, l)	(want[i] && !after_others(i))
#endif
#define MAY_WRITE(i, l)	(!used[i])

inline want_publish(i)
{
	d_step {
		works(i) && pc[i] == IDLE && !want[i] && !quiet[i] && h[i].mem[0] == NOT ->
		want[i] = 1;
		older[i] = want[0] | want[1] << 1 | want[2] << 2;
		older[i] = older[i] & (7 - (1 << i))
	}
}

/* It may never want the lock again; host 0, whom the claim is about, may as well not have begun. */
inline want_no_more(i)
{
	d_step { works(i) && i != 0 && !want[i] && !quiet[i] -> quiet[i] = 1 }
}

inline want_withdraw(i)
{
	want[i] = 0;
	used[i] = 0;
	older[i] = 0;
	older[0] = older[0] & (7 - (1 << i));
	older[1] = older[1] & (7 - (1 << i));
	older[2] = older[2] & (7 - (1 << i))
}
#define USED(i)		used[i] = 1
#define WANT(i)		:: want_publish(i) :: want_no_more(i)

/* No lock is stuck for ever while a live host wants it. */
ltl passed_on { [] ((want[0] && up[0] == MEMBER) -> <> (!want[0] || up[0] != MEMBER)) }
#else
#define MAY_SEEK(i, l)	true
#define MAY_WRITE(i, l)	true
#define want_withdraw(i) skip
#define USED(i)		skip
#define WANT(i)
#endif

/* ---- what a change on disk does to the commands of others ---- */

/* The record of @l changes: compare-and-writes that expect the old image can never land. */
inline record_changes(l)
{
	k = 0;
	do
	:: k < HOSTS ->
		h[k].late[l] = 0;
		if
		:: at[k] == l && (pc[k] == READ || pc[k] == TAKE || pc[k] == TAKING ||
				  pc[k] == CLEARING || pc[k] == DROPPING) -> pc[k] = IDLE
		:: else
		fi;
		k++
	:: else -> break
	od
}

/* The block of slot @s changes; so does whatever was observed of it. */
inline slot_changes(s)
{
	k = 0;
	do
	:: k < HOSTS ->
		if
		:: victim[k] == s && (rec[k] == R_DUE || rec[k] == R_CLAIM || rec[k] == R_FREE) ->
			rec[k] = R_NONE
		:: else
		fi;
		k++
	:: else -> break
	od;
	beat[s] = NONE;
	silent[s] = 0;
	waited[s] = 0
}

/* fence_preempt(): commands under way are aborted, later ones are refused. */
inline abort_all(s)
{
	fenced[s] = 1;
	wr[s] = 0;
	rewr[s] = 0;
	beat[s] = NONE;
	n = 0;
	do
	:: n < LOCKS -> h[s].late[n] = 0; n++
	:: else -> break
	od;
	if
	:: pc[s] == TAKING || pc[s] == CLEARING || pc[s] == DROPPING -> pc[s] = IDLE
	:: else
	fi;
	if
	:: rec[s] == R_CLAIM || rec[s] == R_FREE -> rec[s] = R_NONE
	:: else
	fi
}

/* What a process forgets when it ends; its commands go on. */
inline forget(i)
{
	up[i] = OUT;
	stale_lease[i] = 1;
	slow[i] = 0;
	landed[i] = NONE;
	n = 0;
	do
	:: n < LOCKS ->
		h[i].mem[n] = NOT;
		if
		:: at[i] == n && pc[i] == TAKING && !to_shared(i) -> h[i].late[n] = LATE_TAKE
		:: at[i] == n && pc[i] == DROPPING && !to_shared(i) -> h[i].late[n] = LATE_OF_DROP(i)
		:: at[i] == n && (pc[i] == TAKING || pc[i] == DROPPING) && to_shared(i) ->
			h[i].late[n] = LATE_SHARE
		:: else
		fi;
		n++
	:: else -> break
	od;
	pc[i] = IDLE;
	at[i] = 0;
	want_withdraw(i);
	if
	:: rec[i] == R_CLAIM || rec[i] == R_FREE
	:: else -> rec[i] = R_NONE; victim[i] = 0; beside[i] = 0
	fi
}

/* ---- locks: lock.c, cache.c, drop.c ---- */

#ifdef V_ANY_HEIR
#define MAY_INHERIT(l, i) is_left(l)
#else
#define MAY_INHERIT(l, i) is_heir(l, i)
#endif

/* record_take(): the record is read, through the gate. */
inline acquire_read(i, l, mode)
{
	d_step {
		works(i) && pc[i] == IDLE && MAY_SEEK(i, l) &&
		(h[i].mem[l] == NOT || (h[i].mem[l] == SHARED && mode == HELD)) ->
		at[i] = l;
		TO(i, mode);
		if
		:: (owner[l] == NOBODY || owner[l] == i || MAY_INHERIT(l, i)) &&
		   (mode == SHARED || !shared_by_others(l, i)) -> pc[i] = TAKE
		:: else -> pc[i] = READ
		fi
	}
}

/* One holder that is in the way: a slot older than what the record names is called damaged. */
inline judge_holder(i, s, g)
{
	assert(gen[s] >= g);
	if
	:: !retired(s, g) -> pc[i] = IDLE
	:: else
	fi
}

#ifdef SHARE
inline judge_sharer(i, s)
{
	if
	:: pc[i] == TAKE && s != i && !to_shared(i) && shares(at[i], s) ->
		judge_holder(i, s, h[s].share[at[i]])
	:: else
	fi
}
#define JUDGE_SHARERS(i) judge_sharer(i, 0); judge_sharer(i, 1); judge_sharer(i, 2)
#else
#define JUDGE_SHARERS(i) skip
#endif

/*
 * observe_owner_is_stale(): the slots are read after the record.  One read that finds all holders
 * stale stands for several, for what is retired stays so; and the record is as it was read, or
 * this attempt would be over.
 */
inline acquire_judge(i)
{
	d_step {
		works(i) && pc[i] == READ ->
		pc[i] = TAKE;
		if
		:: owner[at[i]] != NOBODY && owner[at[i]] != i ->
			judge_holder(i, owner[at[i]], ogen[at[i]])
		:: else
		fi;
		JUDGE_SHARERS(i)
	}
}

/*
 * The two reads the other way round.  V_SLOT_FIRST judges as the code does; V_SLOT_LOOSE takes
 * for stale whatever is not in use at that very generation, which is right in the right order.
 */
#if defined(V_SLOT_FIRST) || defined(V_SLOT_LOOSE)
inline acquire_peek(i, s)
{
	d_step {
		works(i) && pc[i] == IDLE && s != i ->
		pc[i] = PEEKED;
		seen[i] = s;
		seengen[i] = gen[s];
		peeked_free[i] = (st[s] == FREE)
	}
}

inline acquire_after_peek(i, l, mode)
{
	d_step {
		works(i) && pc[i] == PEEKED && h[i].mem[l] == NOT ->
		at[i] = l;
		pc[i] = IDLE;
		if
		:: owner[l] == NOBODY || owner[l] == i -> pc[i] = TAKE
		:: owner[l] == seen[i] ->
#ifdef V_SLOT_LOOSE
			if
			:: peeked_free[i] || seengen[i] != ogen[l] -> pc[i] = TAKE
			:: else
			fi
#else
			assert(seengen[i] >= ogen[l]);
			if
			:: seengen[i] > ogen[l] || peeked_free[i] -> pc[i] = TAKE
			:: else
			fi
#endif
		:: else
		fi;
		seen[i] = 0;
		seengen[i] = 0;
		peeked_free[i] = 0
	}
}
#endif

/* record_next(): what the record says when @i holds it. */
inline record_own(l, i)
{
	owner[l] = i;
	ogen[l] = cmdgen[i];
	SET_HEIR(l, 0, 0);
	GIVE_SHARE(l, 0, 0);
	GIVE_SHARE(l, 1, 0);
	GIVE_SHARE(l, 2, 0)
}

inline record_share(l, i)
{
	owner[l] = NOBODY;
	ogen[l] = 0;
	SET_HEIR(l, 0, 0);
	GIVE_SHARE(l, i, cmdgen[i])
}

/* Others that share it stay. */
inline record_leave(l, i)
{
	if
	:: owner[l] == i -> owner[l] = NOBODY; ogen[l] = 0; SET_HEIR(l, 0, 0)
	:: else
	fi;
	GIVE_SHARE(l, i, 0)
}

/* record_write(): issued while the lease is valid. */
inline acquire_issue(i)
{
	d_step { works(i) && pc[i] == TAKE -> pc[i] = TAKING }
}

inline take_lands(i)
{
	d_step {
		pc[i] == TAKING ->
		n = at[i];
		assert(!is_left(n) || owner[n] == i || is_heir(n, i) || retired(owner[n], ogen[n]));
		record_changes(n);
		if
		:: to_shared(i) -> record_share(n, i)
		:: else -> record_own(n, i)
		fi;
		pc[i] = TAKEN
	}
}

/* Success, or an unclear answer and our image found (caw.c, read_back()). */
inline acquire_ends(i)
{
	d_step {
		works(i) && pc[i] == TAKEN ->
		h[i].mem[at[i]] = (to_shared(i) -> SHARED : HELD);
		pc[i] = IDLE;
		want_withdraw(i)
	}
}

/*
 * Unclear, and not to be read back: lock->unclear.  What is under way stays so.  Of an upgrade the
 * old mode is ours in either image.
 */
inline give_up(i)
{
	d_step {
		up[i] == MEMBER && unclears < UNCLEAR &&
		(pc[i] == TAKING || pc[i] == TAKEN || pc[i] == DROPPING || pc[i] == DROPPED) ->
		unclears++;
		if
		:: (pc[i] == DROPPING || pc[i] == DROPPED) && to_shared(i) ->
			h[i].mem[at[i]] = HALF
		:: (pc[i] == TAKING || pc[i] == TAKEN) && h[i].mem[at[i]] == SHARED
		:: else -> h[i].mem[at[i]] = OPEN
		fi;
		if
		:: (pc[i] == TAKING || pc[i] == DROPPING) && to_shared(i) ->
			h[i].late[at[i]] = LATE_SHARE
		:: pc[i] == TAKING && !to_shared(i) -> h[i].late[at[i]] = LATE_TAKE
		:: pc[i] == DROPPING && !to_shared(i) -> h[i].late[at[i]] = LATE_OF_DROP(i)
		:: else
		fi;
		pc[i] = IDLE
	}
}

inline late_lands(i, l)
{
	d_step {
		h[i].late[l] != 0 ->
		n = h[i].late[l];
		record_changes(l);
		if
		:: n == LATE_TAKE -> record_own(l, i)
		:: n == LATE_SHARE -> record_share(l, i)
#ifdef HEIR
		:: n == LATE_GIVE -> SET_HEIR(l, give[i], givegen[i])
#endif
		:: else -> record_leave(l, i)
		fi
	}
}

/* record_settle_fate(): not ours and moved on is enough; else a change of our own.  What was left goes, too. */
inline clear_issue(i, l)
{
	d_step {
		works(i) && pc[i] == IDLE && (h[i].mem[l] == OPEN || h[i].mem[l] == HALF) ->
		assert(h[i].mem[l] == OPEN || names(l, i));
		if
		:: !names(l, i) && !left_by(l, i) && !h[i].late[l] -> h[i].mem[l] = NOT
		:: else -> at[i] = l; pc[i] = CLEARING
		fi
	}
}

inline clear_lands(i)
{
	d_step {
		pc[i] == CLEARING ->
		n = at[i];
		record_changes(n);
		if
		:: h[i].mem[n] == HALF -> record_share(n, i); h[i].mem[n] = SHARED
		:: h[i].mem[n] != HALF && (names(n, i) || left_by(n, i)) ->
			record_leave(n, i); h[i].mem[n] = NOT
		:: else -> h[i].mem[n] = NOT	/* only the sequence */
		fi;
		pc[i] = IDLE
	}
}

/* drop_batch(): settle() has brought everything home (R4), then record_change(). */
inline drop_issue(i, l, mode)
{
	d_step {
		works(i) && pc[i] == IDLE &&
		(h[i].mem[l] == HELD || (h[i].mem[l] == SHARED && mode == NOT)) &&
#ifndef V_NO_SETTLE
		!(journal[i] & (1 << l)) &&
#endif
		wr[i] != l + 1 && wr[i] != LOCKS + l + 1 ->
		at[i] = l;
		TO(i, mode);
		GIVE_NOBODY(i);
		if
		:: names(l, i) -> pc[i] = DROPPING
		:: else -> up[i] = OUT	/* record_gone(): never, in a host with a lease */
#ifdef CHECK_GONE
			; assert(false)
#endif
		fi
	}
}

inline drop_lands(i)
{
	d_step {
		pc[i] == DROPPING ->
		n = at[i];
		record_changes(n);
		if
		:: to_shared(i) -> record_share(n, i)
#ifdef HEIR
		:: give[i] != 0 -> SET_HEIR(n, give[i], givegen[i])
#endif
		:: else -> record_leave(n, i)
		fi;
		pc[i] = DROPPED
	}
}

inline drop_ends(i)
{
	d_step {
		works(i) && pc[i] == DROPPED ->
		h[i].mem[at[i]] = (to_shared(i) -> SHARED : NOT);
		pc[i] = IDLE
	}
}

#ifdef HEIR
/* lock_set_heir() and drop_batch(): as above, for one host that lives; drop_ends() is its end. */
inline give_issue(i, s)
{
	d_step {
		works(i) && pc[i] == IDLE && s != i && up[s] == MEMBER && gives < HEIR &&
		h[i].mem[0] == HELD &&
#ifndef V_NO_SETTLE
		!(journal[i] & 1) &&
#endif
		wr[i] != 1 && names(0, i) ->
		gives++;
		at[i] = 0;
		give[i] = s + 1;
		givegen[i] = mygen[s];
		pc[i] = DROPPING
	}
}

/* lock_free_left(): nobody here would take it back. */
inline free_left(i)
{
	d_step {
		works(i) && pc[i] == IDLE && h[i].mem[0] == NOT && left_by(0, i) ->
		at[i] = 0;
		pc[i] = CLEARING
	}
}

/* V_LEFT_IS_HELD: the owner goes on as if what it has left were its own still. */
inline take_back_unwritten(i)
{
	d_step {
		works(i) && pc[i] == IDLE && h[i].mem[0] == NOT && left_by(0, i) -> h[i].mem[0] = HELD
	}
}
#endif

/* A lower layer sent the command twice and hands on the second answer, a miscompare. */
inline drop_believes_miscompare(i)
{
	d_step {
		works(i) && pc[i] == DROPPED ->
		h[i].mem[at[i]] = HELD;
		pc[i] = IDLE
	}
}

/* ---- what locks are for: a transaction, then its block at home ---- */

inline write_issue(i, l)
{
	d_step {
		works(i) && h[i].mem[l] == HELD && wr[i] == 0 && !(journal[i] & (1 << l)) &&
		!(at[i] == l && pc[i] != IDLE) && MAY_WRITE(i, l) ->
		journal[i] = journal[i] | (1 << l);
		USED(i);
		wr[i] = l + 1
	}
}

/* Nobody else who may read believes that it holds what @i is writing, and is not giving it up. */
#define has_it(l, k) \
	(works(k) && (h[k].mem[l] == HELD || h[k].mem[l] == SHARED) && \
	 !(at[k] == l && (pc[k] == DROPPING || pc[k] == DROPPED) && !to_shared(k)))

/* The heart of it: a write is accepted only from the one holder that is not retired. */
inline write_lands(i)
{
	d_step {
		wr[i] != 0 && wr[i] <= LOCKS ->
		assert(owner[wr[i] - 1] == i && ogen[wr[i] - 1] == cmdgen[i] && !is_left(wr[i] - 1));
		assert(!retired(i, cmdgen[i]));
		assert((i == 0 || !has_it(wr[i] - 1, 0)) && (i == 1 || !has_it(wr[i] - 1, 1)) &&
		       (i == 2 || !has_it(wr[i] - 1, 2)));
		wr[i] = 0
	}
}

/* One of several writers: its data goes where the map that is frozen says.  Nothing is journalled. */
#if defined(SHARE) && SHARE == 2
inline multi_issue(i, l)
{
	d_step {
		works(i) && h[i].mem[l] == SHARED && wr[i] == 0 && !(at[i] == l && pc[i] != IDLE) ->
		wr[i] = LOCKS + l + 1
	}
}

inline multi_lands(i)
{
	d_step {
		wr[i] > LOCKS ->
		n = wr[i] - LOCKS - 1;
		assert((h[i].share[n] == cmdgen[i] || (owner[n] == i && ogen[n] == cmdgen[i])) &&
		       !retired(i, cmdgen[i]));
		wr[i] = 0
	}
}
#define MULTI_ISSUE(i)	EACH(multi_issue, i)
#define MULTI_LANDS(i)	:: multi_lands(i)
#else
#define MULTI_ISSUE(i)
#define MULTI_LANDS(i)
#endif

/* journal_checkpoint(): home and flushed, the tail goes past. */
inline write_trim(i, l)
{
	d_step {
		works(i) && (journal[i] & (1 << l)) && wr[i] != l + 1 ->
		journal[i] = journal[i] & (255 - (1 << l))
	}
}

/* ---- recovery: recover.c ---- */

inline due(r, s)
{
	rec[r] = R_DUE;
	victim[r] = s;
	beside[r] = 0
}

/* recover_is_wanted(), recover_first(), recover_is_due(): on a block read just now. */
inline recover_pick(r, s)
{
	d_step {
		works(r) && rec[r] == R_NONE && s != r && st[s] != FREE && (
		(beats_itself(s) && silent[s] >= SUSPECT) ||
		(st[s] == RECOVERING && by[s] == r) ||
		(st[s] == RECOVERING && by[s] != s && by[s] != r &&
		 (retired(by[s], bygen[s])
#ifdef V_CLAIMER_LAST
		  || silent[by[s]] >= SUSPECT
#endif
		  || ring(s)))) ->
		due(r, s);
		if
		:: st[s] == RECOVERING && by[s] == r && bygen[s] == mygen[r] -> rec[r] = R_FENCE
		:: st[s] == RECOVERING && by[s] != s && by[s] != r && ring(s) ->
			beside[r] = by[s] + 1
		:: else
		fi
	}
}

inline claim_issue(r)
{
	d_step { works(r) && rec[r] == R_DUE -> rec[r] = R_CLAIM }
}

inline claim_lands(r)
{
	d_step {
		rec[r] == R_CLAIM ->
		n = victim[r];
		slot_changes(n);
		st[n] = RECOVERING;
		by[n] = r;
		bygen[n] = cmdgen[r];
		rec[r] = (up[r] == OUT -> R_NONE : R_FENCE)
	}
}

/* recover_check(): read through the gate, the slot is still as we claimed it. */
#define still_ours(r)	(st[victim[r]] == RECOVERING && by[victim[r]] == r && \
			 bygen[victim[r]] == mygen[r])

inline recover_ends(r)
{
	d_step {
		gate(r) && rec[r] >= R_FENCE && rec[r] != R_REPLAY && rec[r] != R_FREE &&
		!still_ours(r) ->
		rec[r] = R_NONE;
		victim[r] = 0;
		beside[r] = 0
	}
}

/* fence_slot(). */
inline recover_fence(r)
{
	d_step {
		gate(r) && rec[r] == R_FENCE && still_ours(r) && waited_out(r) ->
#if RUNG == 1
		abort_all(victim[r]);
		if
		:: beside[r] -> n = beside[r] - 1; abort_all(n)
		:: else
		fi;
#endif
		if
		:: victim[r] == r -> fenced[r] = 0; cmdgen[r] = mygen[r]	/* fence_register() */
		:: else
		fi;
		rec[r] = R_CHECK
	}
}

/* recover_check(), and client replay() begins: its writes go through the gate, no more. */
inline recover_check(r)
{
	d_step {
		gate(r) && rec[r] == R_CHECK && still_ours(r) ->
#ifdef V_FREE_FIRST
		rec[r] = R_RETIRE
#else
		rec[r] = R_REPLAY
#endif
	}
}

inline replay_issue(r, l)
{
	d_step {
		gate(r) && rec[r] == R_REPLAY && rewr[r] == 0 && (journal[victim[r]] & (1 << l)) ->
		rewr[r] = victim[r] * LOCKS + l + 1
	}
}

/* No newer owner's block is written over: the record names the dead host, not yet retired. */
inline replay_lands(r)
{
	d_step {
		rewr[r] != 0 ->
		n = (rewr[r] - 1) % LOCKS;
		k = (rewr[r] - 1) / LOCKS;
		assert(owner[n] == k && !retired(k, ogen[n]));
		journal[k] = journal[k] & (255 - (1 << n));
		rewr[r] = 0
	}
}

inline replay_ends(r)
{
	d_step {
		gate(r) && rec[r] == R_REPLAY && rewr[r] == 0 && journal[victim[r]] == 0 ->
#ifdef V_FREE_FIRST
		rec[r] = R_NONE
#else
		rec[r] = R_ADOPT
#endif
	}
}

/* recover_inherit(): what the dead host was recovering becomes ours. */
inline recover_inherit(r)
{
	d_step {
		gate(r) && rec[r] == R_ADOPT && still_ours(r) ->
		n = 0;
		do
		:: n < HOSTS ->
			if
			:: st[n] == RECOVERING && by[n] == victim[r] && n != victim[r] && n != r &&
			   bygen[n] == gen[victim[r]] ->
				slot_changes(n);
				by[n] = r;
				bygen[n] = mygen[r]
			:: else
			fi;
			n++
		:: else -> break
		od;
		rec[r] = R_RETIRE
	}
}

/* The check and fence_check() before step 6; a host that joins writes LIVE instead. */
inline retire_issue(r)
{
	d_step {
		gate(r) && rec[r] == R_RETIRE && still_ours(r) -> rec[r] = R_FREE
	}
}

inline retire_lands(r)
{
	d_step {
		rec[r] == R_FREE ->
		n = victim[r];
		slot_changes(n);
		by[n] = NOBODY;
		bygen[n] = 0;
		if
		:: n == r -> st[n] = LIVE; gen[n] = cmdgen[r]
		:: else -> st[n] = FREE
		fi;
#ifdef V_FREE_FIRST
		rec[r] = (up[r] == OUT -> R_NONE : R_REPLAY)
#else
		rec[r] = R_NONE
#endif
	}
}

/* ---- joining and leaving: host.c ---- */

#ifdef V_SAME_GENERATION
#define NEXT(g)	(g)
#else
#define NEXT(g)	((g) + 1)
#endif

inline enter(i)
{
	joins++;
	up[i] = ENTERING;
	mygen[i] = NEXT(gen[i]);
	stale_lease[i] = 0;
	slow[i] = 0;
	slot_changes(i)
}

/* join_claim() of a free slot. */
inline join_free(i)
{
	d_step {
		up[i] == OUT && joins < JOINS && st[i] == FREE && rec[i] == R_NONE ->
		enter(i);
		st[i] = JOINING;
		gen[i] = mygen[i];
		cmdgen[i] = mygen[i];
		fenced[i] = 0
	}
}

/* join_judge_own(), join_claim() of one's own dead slot: fenced and replayed as R_FENCE on. */
inline join_own(i)
{
	d_step {
		up[i] == OUT && joins < JOINS && rec[i] == R_NONE && beats_itself(i) ->
		enter(i);
		st[i] = RECOVERING;
		by[i] = i;
		bygen[i] = mygen[i];
		fenced[i] = 0;
		due(i, i);
		rec[i] = R_FENCE
	}
}

inline join_live(i)
{
	d_step {
		up[i] == ENTERING && gate(i) && slot_is_mine(i) && st[i] != RECOVERING ->
		if
		:: st[i] == JOINING -> slot_changes(i); st[i] = LIVE
		:: else
		fi;
		up[i] = MEMBER
	}
}

/* lockd_leave(): settled, nothing under way; a recovery ends at its next step. */
inline leave(i)
{
	d_step {
		works(i) && leaves < LEAVES && pc[i] == IDLE && !under_way(i) && journal[i] == 0 &&
		slot_is_mine(i) ->
		leaves++;
		slot_changes(i);
		st[i] = FREE;
		forget(i)
	}
}

/* ---- the heartbeat and its clock: heartbeat.c, gate.c ---- */

inline crash(i)
{
	d_step { up[i] != OUT && crashes < CRASHES -> crashes++; forget(i) }
}

/* beat_lost_to(), record_gone(): somebody else's image is in our slot. */
inline lose(i)
{
	d_step { up[i] != OUT && !slot_is_mine(i) -> forget(i) }
}

/* beat_once(): t0 is now.  Also the next attempt after an unclear one: at most one lands. */
inline beat_issue(i)
{
	d_step {
		up[i] != OUT && slot_is_mine(i) && !fenced[i] && beat[i] != FRESH &&
		landed[i] == NONE && (silent[i] > 0 || stale_lease[i]) ->
		beat[i] = FRESH
	}
}

inline beat_lands(i)
{
	d_step {
		beat[i] != NONE ->
		landed[i] = (up[i] != OUT -> beat[i] : NONE);
		slot_changes(i)
	}
}

/* beat_succeeded(), beat_renew(): the lease runs from that image's own t0. */
inline beat_renews(i)
{
	d_step {
		up[i] != OUT && landed[i] != NONE ->
		if
#ifdef V_LEASE_FROM_ANSWER
		:: true ->
#else
		:: landed[i] == FRESH ->
#endif
			stale_lease[i] = 0;
			if
			:: silent[i] == 0 -> slow[i] = 0
			:: else
			fi
#ifndef V_LEASE_FROM_ANSWER
		:: else
#endif
		fi;
		landed[i] = NONE
	}
}

#define may_fall_silent(i) (up[i] == OUT || silent[i] > 0 || freezes < FREEZES)

/* A tick over slot @i, whose host may be frozen; @own: its own clock moves as well. */
inline tick(i, own)
{
	d_step {
		beats_itself(i) && silent[i] < SUSPECT && may_fall_silent(i) && !too_late(i) &&
		(own || (!slow[i] && !stale_lease[i])) ->
		if
		:: up[i] != OUT && silent[i] == 0 -> freezes++
		:: else
		fi;
		silent[i]++;
		pass(i, own)
	}
}

inline pass(i, own)
{
#if RUNG == 2
	if
	:: (stale_lease[i] || cmdgen[i] != mygen[i]) && under_way(i) -> overdue[i] = 1
	:: else -> overdue[i] = 0
	fi;
#endif
	if
	:: own ->
		stale_lease[i] = 1;
		beat[i] = (beat[i] == NONE -> NONE : OLD);
		landed[i] = (landed[i] == NONE -> NONE : OLD)
	:: else -> slow[i] = 1
	fi
}

#define crossed(s) (by[s] != NOBODY && by[s] != s && st[by[s]] == RECOVERING && by[by[s]] == s)

/* A tick over a slot that waits for its recoverer. */
inline tick_claimed(i)
{
	d_step {
		st[i] == RECOVERING && !too_late(i) &&
		(waited[i] < BOUND || (by[i] != i && crossed(i) && silent[i] < SUSPECT)) ->
		if
		:: waited[i] < BOUND -> waited[i]++
		:: else
		fi;
		if
		:: by[i] != i && crossed(i) && silent[i] < SUSPECT -> silent[i]++
		:: else
		fi;
		if
		:: by[i] != i -> pass(i, true)
		:: else -> overdue[i] = (cmdgen[i] != mygen[i] && under_way(i))
		fi
	}
}

/* ---- hosts have no names ---- */

/*
 * Hosts, each with its slot, are all alike, so a state in which they have changed places is the same
 * state again.  After each move they are put in an order, and what is left over of moves that
 * have ended is wiped out: one of up to six states is searched for the others.  Any order is right; a good
 * one seldom takes two hosts for equal.
 */
#ifndef LIVENESS
#define KEY(i) \
	(up[i] | st[i] << 2 | gen[i] << 4 | mygen[i] << 7 | pc[i] << 10 | rec[i] << 14 | \
	 stale_lease[i] << 18 | slow[i] << 19 | beat[i] << 20 | landed[i] << 22 | \
	 silent[i] << 24 | wr[i] << 26 | journal[i] << 28 | fenced[i] << 30)
#define SWAP(x)		k = x[a]; x[a] = x[b]; x[b] = k
#define OTHER(x)	((x) == a -> b : ((x) == b -> a : (x)))

hidden int key[HOSTS];
hidden byte m;

/* References to hosts a and b, where they mean something. */
inline rename(i, a, b)
{
	by[i] = OTHER(by[i]);
#ifdef HEIR
	give[i] = (give[i] -> OTHER(give[i] - 1) + 1 : 0);
#endif
	if
	:: rec[i] != R_NONE ->
		victim[i] = OTHER(victim[i]);
		beside[i] = (beside[i] -> OTHER(beside[i] - 1) + 1 : 0)
	:: else
	fi;
	if
	:: rewr[i] ->
		k = (rewr[i] - 1) / LOCKS;
		rewr[i] = OTHER(k) * LOCKS + (rewr[i] - 1) % LOCKS + 1
	:: else
	fi
#if defined(V_SLOT_FIRST) || defined(V_SLOT_LOOSE)
	;
	if
	:: pc[i] == PEEKED -> seen[i] = OTHER(seen[i])
	:: else -> seen[i] = 0; seengen[i] = 0; peeked_free[i] = 0
	fi
#endif
}

inline swap_hosts(a, b)
{
	if
	:: key[a] < key[b] ->
		m = 0;
		do
		:: m < HOSTS -> rename(m, a, b); m++
		:: else -> break
		od;
		m = 0;
		do
		:: m < LOCKS ->
			owner[m] = OTHER(owner[m]);
#ifdef HEIR
			heir[m] = (heir[m] -> OTHER(heir[m] - 1) + 1 : 0);
#endif
#ifdef SHARE
			k = h[a].share[m]; h[a].share[m] = h[b].share[m]; h[b].share[m] = k;
#endif
			k = h[a].mem[m]; h[a].mem[m] = h[b].mem[m]; h[b].mem[m] = k;
			k = h[a].late[m]; h[a].late[m] = h[b].late[m]; h[b].late[m] = k;
			m++
		:: else -> break
		od;
		SWAP(st); SWAP(gen); SWAP(by); SWAP(bygen); SWAP(journal); SWAP(up); SWAP(mygen);
		SWAP(cmdgen); SWAP(stale_lease); SWAP(slow); SWAP(beat); SWAP(landed); SWAP(pc);
		SWAP(at); SWAP(wr); SWAP(rewr); SWAP(rec);
		SWAP(victim); SWAP(beside); SWAP(silent); SWAP(waited); SWAP(overdue);
		SWAP(fenced);
#ifdef SHARE
		SWAP(to);
#endif
#ifdef HEIR
		SWAP(give); SWAP(givegen);
#endif
#if defined(V_SLOT_FIRST) || defined(V_SLOT_LOOSE)
		SWAP(seen); SWAP(seengen); SWAP(peeked_free);
#endif
		m = 0;
		key[a] = key[a] ^ key[b];
		key[b] = key[a] ^ key[b];
		key[a] = key[a] ^ key[b]
	:: else
	fi
}

inline normalize()
{
	d_step {
		m = 0;
		do
		:: m < HOSTS ->
			if
			:: pc[m] == IDLE -> at[m] = 0; TO(m, NOT)
			:: else
			fi;
#ifdef HEIR
			if
			:: pc[m] != DROPPING && h[m].late[0] != LATE_GIVE -> GIVE_NOBODY(m)
			:: else
			fi;
#endif
			if
			:: rec[m] == R_NONE -> victim[m] = 0; beside[m] = 0
			:: else
			fi;
			key[m] = KEY(m);
			m++
		:: else -> break
		od;
		swap_hosts(0, 1);
		swap_hosts(1, 2);
		swap_hosts(0, 1);
		k = 0; n = 0; m = 0
	}
}
#endif

/* ---- the processes ---- */

#if LOCKS > 1
#define EACH(move, i)	:: move(i, 0) :: move(i, 1)
#define EACH_TO(move, i, mode) :: move(i, 0, mode) :: move(i, 1, mode)
#else
#define EACH(move, i)	:: move(i, 0)
#define EACH_TO(move, i, mode) :: move(i, 0, mode)
#endif

#if defined(V_SLOT_FIRST) || defined(V_SLOT_LOOSE)
#define ACQUIRE_MOVES(i) \
	:: acquire_peek(i, 0) :: acquire_peek(i, 1) :: acquire_peek(i, 2) \
	EACH_TO(acquire_after_peek, i, HELD)
#elif defined(SHARE)
#define ACQUIRE_MOVES(i) \
	EACH_TO(acquire_read, i, HELD) EACH_TO(acquire_read, i, SHARED) :: acquire_judge(i) \
	EACH_TO(drop_issue, i, SHARED)
#else
#define ACQUIRE_MOVES(i) EACH_TO(acquire_read, i, HELD) :: acquire_judge(i)
#endif

#ifdef V_MISCOMPARE
#define DROP_ENDS(i) :: drop_ends(i) :: drop_believes_miscompare(i)
#else
#define DROP_ENDS(i) :: drop_ends(i)
#endif

#ifdef HEIR
#ifdef V_LEFT_IS_HELD
#define HEIR_MOVES(i)	:: give_issue(i, 0) :: give_issue(i, 1) :: give_issue(i, 2) :: take_back_unwritten(i)
#else
#define HEIR_MOVES(i)	:: give_issue(i, 0) :: give_issue(i, 1) :: give_issue(i, 2) :: free_left(i)
#endif
#else
#define HEIR_MOVES(i)
#endif

/* The threads of a host that take, use and drop locks. */
#define USER(i) \
	ACQUIRE_MOVES(i) :: acquire_issue(i) :: acquire_ends(i) :: give_up(i) \
	CLEAR_ISSUE(i) EACH(write_issue, i) EACH(write_trim, i) MULTI_ISSUE(i) \
	EACH_TO(drop_issue, i, NOT) DROP_ENDS(i) HEIR_MOVES(i) WANT(i)

/* recover_thread(), and join_go_live() as far as it does the same. */
#define RECOVERER(i) \
	:: recover_pick(i, 0) :: recover_pick(i, 1) :: recover_pick(i, 2) \
	:: claim_issue(i) :: recover_ends(i) :: recover_fence(i) :: recover_check(i) \
	EACH(replay_issue, i) :: replay_ends(i) :: recover_inherit(i) :: retire_issue(i)

/* A rule of liveness taken away: nobody recovers the dead, or nobody frees what is unclear. */
#ifdef V_NO_RECOVERY
#undef RECOVERER
#define RECOVERER(i) :: false
#endif
#ifdef V_UNCLEAR_KEPT
#define CLEAR_ISSUE(i)
#else
#define CLEAR_ISSUE(i)	EACH(clear_issue, i)
#endif

/* What of a host's commands is under way reaches the device. */
#define DEVICE(i) \
	:: take_lands(i) EACH(late_lands, i) :: clear_lands(i) :: drop_lands(i) \
	:: write_lands(i) MULTI_LANDS(i) :: claim_lands(i) :: replay_lands(i) :: retire_lands(i) \
	:: beat_lands(i)

/* beat_thread(), joining, and being lost. */
#define HEART(i) \
	:: beat_issue(i) :: beat_renews(i) :: lose(i) \
	:: join_free(i) :: join_own(i) :: join_live(i)

/* Time, and what befalls a host. */
#define FATE(i) \
	:: tick(i, true) :: tick(i, false) :: tick_claimed(i) :: crash(i) :: leave(i)

#ifdef LIVENESS
/*
 * Each thread a process, for fairness is promised to processes.  Without freezes and joins a
 * host that lives beats, and nothing is left for a Heart to do.
 */
proctype User(byte i) { end: do USER(i) od }
proctype Recoverer(byte i) { end: do RECOVERER(i) od }
proctype Device(byte i) { end: do DEVICE(i) :: tick(i, true) :: crash(i) od }
#if FREEZES > 0 || JOINS > 0
proctype Heart(byte i) { end: do HEART(i) od }
#endif
#else
/* All threads of all hosts in any order: for safety it matters not who makes a move. */
proctype Cluster()
{
end:	do
	:: atomic {
		if
		USER(0) RECOVERER(0) DEVICE(0) HEART(0) FATE(0)
		USER(1) RECOVERER(1) DEVICE(1) HEART(1) FATE(1)
		USER(2) RECOVERER(2) DEVICE(2) HEART(2) FATE(2)
		fi;
		normalize()
	}
	od
}
#endif

init {
	atomic {
		byte i = 0;
		do
		:: i < HOSTS ->
			st[i] = LIVE;
			gen[i] = 1;
			by[i] = NOBODY;
			up[i] = MEMBER;
			mygen[i] = 1;
			cmdgen[i] = 1;
#ifdef LIVENESS
			run User(i);
			run Recoverer(i);
			run Device(i);
#if FREEZES > 0 || JOINS > 0
			run Heart(i);
#endif
#endif
			i++
		:: else -> break
		od;
		i = 0;
		do
		:: i < LOCKS -> owner[i] = NOBODY; i++
		:: else -> break
		od;
		i = 0;
#ifndef LIVENESS
		run Cluster()
#endif
	}
}

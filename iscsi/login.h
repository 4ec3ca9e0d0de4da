/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Login and text negotiation as state machines without I/O: PDUs in, PDUs out.
 *
 * The connection (conn.c) collects each PDU, hands it in and sends what comes back.  It fills
 * in StatSN, and where it knows better than a login ExpCmdSN and MaxCmdSN.
 */
#ifndef LUNFS_ISCSI_LOGIN_H
#define LUNFS_ISCSI_LOGIN_H

#include <netinet/in.h>

#include "iscsi/params.h"
#include "iscsi/pdu.h"

struct tgt_config;
struct tgt_login;	/* one connection's login; bounded, freed at the end of it */

/* Where the connection comes from and went to, for access control and messages. */
struct tgt_peer {
	struct sockaddr_storage remote;
	struct sockaddr_storage local;
	uint16_t	portal_group;	/* TPGT of the portal */
};

enum tgt_login_result {
	TGT_LOGIN_GO_ON,	/* send the reply if there is one, expect the next request */
	/*
	 * The initiator is who it says and everything is agreed: find or make its session
	 * by tgt_login_params(), then call tgt_login_attached().  No reply yet.
	 */
	TGT_LOGIN_ATTACH,
	TGT_LOGIN_FULL,		/* send the reply, then the connection is in full feature phase */
	TGT_LOGIN_CLOSE,	/* send the reply if there is one, then close */
};

/* A PDU to send.  data points into the state machine and is good until the next call. */
struct tgt_reply {
	bool		valid;		/* false: there is nothing to send */
	union {
		struct pdu_bhs_wire bhs;
		struct pdu_reply_wire reply;
		struct pdu_login_response_wire login;
		struct pdu_text_response_wire text;
		struct pdu_reject_wire reject;
	};
	const uint8_t	*data;
	uint32_t	data_len;	/* as bhs.data_len */
};

/**
 * tgt_login_create() - a login about to begin.
 * @env: for randomness (CHAP challenges) and log lines.
 * @config: borrowed until tgt_login_destroy().
 * Return: 0 or -ENOMEM.
 */
int tgt_login_create(struct env *env, const struct tgt_config *config, const struct tgt_peer *peer,
		     struct tgt_login **out);
void tgt_login_destroy(struct tgt_login *login);

/**
 * tgt_login_receive() - one PDU of the initiator, of whatever opcode.
 * @data: its data segment without padding, @data_len <= PDU_LOGIN_DATA_MAX; read during the
 *        call only.
 */
enum tgt_login_result tgt_login_receive(struct tgt_login *login, const struct pdu_bhs_wire *bhs,
					const uint8_t *data, uint32_t data_len,
					struct tgt_reply *reply);

/** tgt_login_params() - what is agreed, from TGT_LOGIN_ATTACH on. */
const struct tgt_params *tgt_login_params(const struct tgt_login *login);

/**
 * tgt_login_attached() - the answer to TGT_LOGIN_ATTACH.
 * @status: PDU_LOGIN_SUCCESS, or why there is no session for it.
 * @tsih: of the session.
 * Return: TGT_LOGIN_FULL or TGT_LOGIN_CLOSE, with the last reply.
 */
enum tgt_login_result tgt_login_attached(struct tgt_login *login, enum pdu_login_status status,
					 uint16_t tsih, struct tgt_reply *reply);

/* A text negotiation in full feature phase, one at a time on a connection. */
struct tgt_text;

#define TGT_TEXT_MAX	32768u	/* of one response, whatever the initiator takes */

int tgt_text_create(struct env *env, const struct tgt_config *config, const struct tgt_peer *peer,
		    struct tgt_text **out);
void tgt_text_destroy(struct tgt_text *text);

/**
 * tgt_text_receive() - one Text Request.
 * @params: of the connection; send_dsl_max changes when the initiator declares another one,
 *          and holds from the reply on.
 * @reply:  a Text Response, or a Reject.
 * @data_len: bounded by params->recv_dsl_max; what is too long is refused.
 */
void tgt_text_receive(struct tgt_text *text, struct tgt_params *params,
		      const struct pdu_text_request_wire *bhs, const uint8_t *data,
		      uint32_t data_len, struct tgt_reply *reply);

#endif

// Send one message as applications do; its options are JSON in the first argument, the answer is JSON on standard output.
'use strict';
const nodemailer = require('nodemailer');
const { transport, message } = JSON.parse(process.argv[2]);
nodemailer
    .createTransport(transport)
    .sendMail({ ...message, attachments: [{ filename: 'big.bin', content: Buffer.alloc(message.big || 0, 7) }] })
    .then((done) => console.log(JSON.stringify({ accepted: done.accepted, rejected: done.rejected, response: done.response })))
    .catch((error) => {
        console.log(JSON.stringify({ code: error.code, responseCode: error.responseCode, command: error.command }));
        process.exit(1);
    });

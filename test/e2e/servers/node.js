// Node's http, which notes each request that it has read whole: node node.js PORT FILE
'use strict';
const fs = require('fs');
const http = require('http');
const [port, file] = process.argv.slice(2);

const server = http.createServer({ maxHeaderSize: 65536 }, (request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    const seen = [request.method, request.url, Buffer.concat(parts).toString('hex')];
    fs.appendFileSync(file, JSON.stringify(seen) + '\n');
    response.end('ok');
  });
  request.on('error', () => {});
});
server.on('checkContinue', (request, response) => {
  response.writeContinue();
  server.emit('request', request, response);
});
server.on('checkExpectation', (request, response) => server.emit('request', request, response));
server.listen(Number(port), '127.0.0.1');

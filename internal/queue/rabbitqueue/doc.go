// Package rabbitqueue hands out the messages of a RabbitMQ queue, by AMQP 0-9-1. It knows how to speak of items and
// not how to reach a server: that is what it is given to dial with.
//
// # How an item moves
//
// A message is got from the queue and not acknowledged until the journal has it: its bytes, and from then on all that
// becomes of it. Then it is acknowledged, and the journal is the only place that has it until it is done. It is not
// left unacknowledged for as long as its Job runs, since RabbitMQ closes a channel on which a message has not been
// acknowledged for 30 minutes (consumer_timeout), and counts a message that comes back towards the delivery limit of a
// quorum queue, which is 20 from RabbitMQ 4.0 on, beyond which the message is dropped.
//
// The journal is a stream: what is appended stays, in one order, and everybody can read it from its beginning. Each
// process folds its events (state.go) into the same state. Whoever wants something appends an event, waits until it
// has read it back, and takes from its own state at that point what came of it. So an event takes effect as a whole or
// not at all, the first of two that contradict wins, and several processes agree without locks.
//
// # Invariants
//
//  1. A message is acknowledged only when the journal has it, or has had it. So none is lost.
//  2. What is claimed, settled, put off, dead and given back follows from the journal alone. So after any crash it is
//     what it was, and a settlement that is repeated finds its claim not held.
//  3. An item's attempt is counted by the event that claims it, and ids never repeat. So (id, attempt) never does.
//  4. A message enters the journal once. From the event that takes it until its acknowledgement is known to be kept by
//     the server, the journal remembers a print of it (message-id and bytes). A message of that print which is got over
//     another connection meanwhile is the same message come back: it is acknowledged, and no item is made of it.
//
// An acknowledgement is taken to be kept when the connection that sent it has lived on for 10 seconds. Before that, a
// crash of the server may undo it. What other connections have left is forgotten a minute after it was first seen, and
// only when all messages that are in the queue by then have been got. That rests on a bound in time: an event reaches
// the journal within 10 seconds after its connection has ended, or never.
//
// # What crashes lead to
//
//   - After a message is got and before the journal has it: the server has it in the queue again.
//   - After the journal has it and before it is acknowledged, or after that and before the acknowledgement is kept:
//     the message is in the queue again, and the item is in the journal. The print tells, whatever has become of the
//     item.
//   - While it is unknown whether the journal has it: the connection is closed, so the message is in the queue again.
//     If the event comes late, after others have got the message, the one whose event is second makes no item.
//   - After any other event was sent and before its answer: it has taken effect or not. The claims tell.
//
// # Equal messages
//
// Messages of equal bytes and without message-ids have equal prints. That one is taken for another needs a connection
// that ended less than 10 seconds after it took the one; and the other must be marked as redelivered, or have been in
// the queue when the present connection was made: any other has come since and is new. Then one item is run where two
// were pushed. A message-id that differs avoids it.
//
// # The journal's streams
//
// The stream QUEUE.offboard is the index: it names the stream that has the journal now, QUEUE.offboard.N-RANDOM. When
// that has become long, an event closes it: later ones are void. Whoever sees that writes the state at this point to a
// new stream under a name that nobody else uses, and then announces it in the index. The first announcement of a
// number counts; who comes later deletes what it has written. The stream that was closed is deleted when the next one
// is.
package rabbitqueue

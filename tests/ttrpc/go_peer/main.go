// SPDX-License-Identifier: Apache-2.0

// Command go_peer is the other end for the tests of our ttrpc, on the Go implementation.
//
//	go_peer serve SOCKET   serves ttrpc.test.v1.Echo until it is killed; prints "ready"
//	go_peer call SOCKET    calls such a service and prints one line for each outcome
//	go_peer capture        prints, in hexadecimal, the frame that a call writes
package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const service = "ttrpc.test.v1.Echo"

type (
	text   = wrapperspb.StringValue
	number = wrapperspb.Int32Value
)

func main() {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "serve":
		err = serve(os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == "call":
		err = call(os.Args[2])
	case len(os.Args) == 2 && os.Args[1] == "capture":
		err = capture()
	default:
		err = errors.New("usage: go_peer serve|call SOCKET | capture")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func unary[Q any](handle func(context.Context, *Q) (any, error)) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(any) error) (any, error) {
		request := new(Q)
		if err := unmarshal(request); err != nil {
			return nil, err
		}
		return handle(ctx, request)
	}
}

func serve(socket string) error {
	server, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	server.RegisterService(service, &ttrpc.ServiceDesc{
		Methods: map[string]ttrpc.Method{
			"Say": unary(func(_ context.Context, request *text) (any, error) { return request, nil }),
			"Fail": unary(func(_ context.Context, request *number) (any, error) {
				return nil, status.Error(codes.Code(request.Value), "as asked")
			}),
			"Metadata": unary(func(ctx context.Context, request *text) (any, error) {
				value, _ := ttrpc.GetMetadataValue(ctx, request.Value)
				return wrapperspb.String(value), nil
			}),
			"Deadline": unary(func(ctx context.Context, _ *emptypb.Empty) (any, error) {
				deadline, ok := ctx.Deadline()
				if !ok {
					return wrapperspb.Int64(-1), nil
				}
				return wrapperspb.Int64(time.Until(deadline).Milliseconds()), nil
			}),
			"Big": unary(func(_ context.Context, request *number) (any, error) {
				return wrapperspb.String(strings.Repeat("x", int(request.Value))), nil
			}),
		},
		Streams: map[string]ttrpc.Stream{
			"Collect": {Handler: collect, StreamingClient: true},
			"Count":   {Handler: count, StreamingServer: true},
			"Chat":    {Handler: chat, StreamingClient: true, StreamingServer: true},
		},
	})
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return server.Serve(context.Background(), listener)
}

func collect(_ context.Context, stream ttrpc.StreamServer) (any, error) {
	joined := ""
	for {
		message := new(text)
		if err := stream.RecvMsg(message); errors.Is(err, io.EOF) {
			return wrapperspb.String(joined), nil
		} else if err != nil {
			return nil, err
		}
		joined += message.Value
	}
}

func count(_ context.Context, stream ttrpc.StreamServer) (any, error) {
	limit := new(number)
	if err := stream.RecvMsg(limit); err != nil {
		return nil, err
	}
	for i := range limit.Value {
		if err := stream.SendMsg(wrapperspb.String(fmt.Sprint(i))); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func chat(_ context.Context, stream ttrpc.StreamServer) (any, error) {
	for {
		message := new(text)
		if err := stream.RecvMsg(message); errors.Is(err, io.EOF) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		switch message.Value {
		case "fail":
			return nil, status.Error(codes.FailedPrecondition, "as asked")
		case "leave":
			return nil, nil
		}
		if err := stream.SendMsg(message); err != nil {
			return nil, err
		}
	}
}

func call(socket string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()

	said := new(text)
	err = client.Call(ctx, service, "Say", wrapperspb.String("hello"), said)
	show("say", said.Value, err)

	err = client.Call(ctx, service, "Fail", wrapperspb.Int32(5), new(emptypb.Empty))
	show("fail", "", err)
	err = client.Call(ctx, service, "Missing", new(emptypb.Empty), new(emptypb.Empty))
	show("unknown method", "", err)
	err = client.Call(ctx, "no.Such", "Missing", new(emptypb.Empty), new(emptypb.Empty))
	show("unknown service", "", err)

	metadata := ttrpc.MD{}
	metadata.Set("containerd-namespace-ttrpc", "default")
	err = client.Call(ttrpc.WithMetadata(ctx, metadata), service, "Metadata",
		wrapperspb.String("containerd-namespace-ttrpc"), said)
	show("metadata", said.Value, err)

	left := new(wrapperspb.Int64Value)
	err = client.Call(ctx, service, "Deadline", new(emptypb.Empty), left)
	show("deadline", fmt.Sprint(left.Value > 10_000 && left.Value <= 20_000), err)

	err = client.Call(ctx, service, "Big", wrapperspb.Int32(4<<20-64), said)
	show("big", fmt.Sprint(len(said.Value)), err)
	err = client.Call(ctx, service, "Big", wrapperspb.Int32(4<<20), said)
	show("too big", "", err)

	show("concurrent", fmt.Sprint(concurrent(ctx, client)), nil)
	return streams(ctx, client)
}

func concurrent(ctx context.Context, client *ttrpc.Client) int {
	var group sync.WaitGroup
	var lock sync.Mutex
	right := 0
	for i := range 100 {
		group.Add(1)
		go func() {
			defer group.Done()
			said := new(text)
			want := strings.Repeat(fmt.Sprint(i), 100)
			if err := client.Call(ctx, service, "Say", wrapperspb.String(want), said); err == nil && said.Value == want {
				lock.Lock()
				right++
				lock.Unlock()
			}
		}()
	}
	group.Wait()
	return right
}

func streams(ctx context.Context, client *ttrpc.Client) error {
	message := new(text)
	stream, err := client.NewStream(ctx, &ttrpc.StreamDesc{StreamingClient: true}, service, "Collect", nil)
	if err != nil {
		return err
	}
	for _, part := range []string{"a", "", "b"} {
		if err := stream.SendMsg(wrapperspb.String(part)); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	err = stream.RecvMsg(message)
	show("collect", message.Value, err)

	stream, err = client.NewStream(ctx, &ttrpc.StreamDesc{StreamingServer: true}, service, "Count", wrapperspb.Int32(300))
	if err != nil {
		return err
	}
	got := 0
	for err == nil {
		if err = stream.RecvMsg(message); err == nil && message.Value == fmt.Sprint(got) {
			got++
		}
	}
	show("count", fmt.Sprint(got), err)

	for _, last := range []string{"", "fail", "leave"} {
		stream, err = client.NewStream(ctx, &ttrpc.StreamDesc{StreamingClient: true, StreamingServer: true}, service, "Chat", nil)
		if err != nil {
			return err
		}
		echoed := ""
		for i := range 100 {
			if err := stream.SendMsg(wrapperspb.String(fmt.Sprint(i % 10))); err != nil {
				return err
			}
			if err := stream.RecvMsg(message); err != nil {
				return err
			}
			echoed += message.Value
		}
		if last == "" {
			err = stream.CloseSend()
		} else {
			err = stream.SendMsg(wrapperspb.String(last))
		}
		if err == nil {
			err = stream.RecvMsg(message)
		}
		show("chat "+last, fmt.Sprint(len(echoed)), err)
	}
	return nil
}

func show(name, value string, err error) {
	switch code, ok := status.FromError(err); {
	case err == nil:
		fmt.Printf("%s: %s\n", name, value)
	case errors.Is(err, io.EOF):
		fmt.Printf("%s: %s EOF\n", name, value)
	case ok:
		fmt.Printf("%s: %d %s\n", name, code.Code(), code.Message())
	default:
		fmt.Printf("%s: %v\n", name, err)
	}
}

func capture() error {
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	metadata := ttrpc.MD{}
	metadata.Set("containerd-namespace-ttrpc", "default")
	go func() {
		client := ttrpc.NewClient(near)
		_ = client.Call(ttrpc.WithMetadata(ctx, metadata), "svc", "Do", wrapperspb.String("x"), new(emptypb.Empty))
	}()
	header := make([]byte, 10)
	if _, err := io.ReadFull(far, header); err != nil {
		return err
	}
	body := make([]byte, int(header[2])<<8|int(header[3]))
	if _, err := io.ReadFull(far, body); err != nil {
		return err
	}
	fmt.Println(hex.EncodeToString(append(header, body...)))
	return nil
}

//! gRPC messages in the log's own bytes.

use std::marker::PhantomData;

use bytes::{Buf, BufMut};
use lictor_types::encoding;
use minicbor::{Decode, Encode};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Sends `E`, receives `D`.
pub(super) struct CborCodec<E, D>(PhantomData<fn(E) -> D>);

impl<E, D> Default for CborCodec<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E, D> Codec for CborCodec<E, D>
where
    E: Encode<()> + Send + 'static,
    D: for<'b> Decode<'b, ()> + Send + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = CborEncoder<E>;
    type Decoder = CborDecoder<D>;

    fn encoder(&mut self) -> Self::Encoder {
        CborEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        CborDecoder(PhantomData)
    }
}

pub(super) struct CborEncoder<E>(PhantomData<fn(E)>);

impl<E: Encode<()>> Encoder for CborEncoder<E> {
    type Item = E;
    type Error = Status;

    fn encode(&mut self, item: E, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&encoding::encode(&item));
        Ok(())
    }
}

pub(super) struct CborDecoder<D>(PhantomData<fn() -> D>);

impl<D: for<'b> Decode<'b, ()>> Decoder for CborDecoder<D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        // A variant of a newer release ends here: it is refused before it is proposed.
        encoding::decode(&bytes).map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

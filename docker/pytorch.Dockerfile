# What every step runs in except TensorRT's: NVIDIA's PyTorch image with our pinned packages added.
ARG RELEASE
ARG BASE=nvcr.io/nvidia/pytorch:${RELEASE}-py3
FROM ${BASE}
# For networks with a package index or an authority of their own.
ARG PIP_INDEX_URL
ARG PIP_CERT
ARG ONNXRUNTIME=requirements-gpu.txt
COPY add_packages.py requirements.txt ${ONNXRUNTIME} /opt/verdict/
RUN python3 /opt/verdict/add_packages.py --brought torch --brought onnx \
    /opt/verdict/requirements.txt /opt/verdict/${ONNXRUNTIME}
# bash reads what NVIDIA's images set up for older drivers, without their banner.
ENTRYPOINT ["bash", "-c", "exec \"$0\" \"$@\""]
COPY check_image.py /opt/verdict/
RUN python3 /opt/verdict/check_image.py pytorch

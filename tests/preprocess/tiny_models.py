"""Tiny checkpoints with random weights, written as the real ones are, for adapters to load."""

import torch

# Of the memory of past frames, for both video models.
MEMORY = {
    "mask_downsampler_embed_dim": 128,
    "num_maskmem": 3,
    "max_object_pointers_in_encoder": 5,
    "memory_fuser_num_layers": 1,
    "memory_fuser_embed_dim": 128,
    "memory_fuser_intermediate_dim": 32,
}


def save_depth_anything(folder, metric=False):
    from transformers import (
        DepthAnythingConfig,
        DepthAnythingForDepthEstimation,
        Dinov2Config,
    )

    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=56,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8,
        head_hidden_size=8,
        depth_estimation_type="metric" if metric else "relative",
        max_depth=20,
    )
    torch.manual_seed(0)
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    return folder


def save_zoedepth(folder):
    from transformers import BeitConfig, ZoeDepthConfig, ZoeDepthForDepthEstimation

    backbone = BeitConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=64,
        patch_size=16,
        use_relative_position_bias=True,
        reshape_hidden_states=False,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = ZoeDepthConfig(
        backbone_config=backbone,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        num_relative_features=8,
        bottleneck_features=16,
        bin_embedding_dim=16,
        num_attractors=[4, 2, 1, 1],
        bin_configurations=[{"name": "nyu", "n_bins": 8, "min_depth": 0.1, "max_depth": 10.0}],
        num_patch_transformer_layers=None,
    )
    torch.manual_seed(0)
    ZoeDepthForDepthEstimation(config).save_pretrained(folder)
    return folder


def save_depth_pro(folder):
    from transformers import DepthProConfig, DepthProForDepthEstimation, Dinov2Config

    def encoder():
        return Dinov2Config(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=32,
            patch_size=8,
        )

    config = DepthProConfig(
        patch_size=32,
        fusion_hidden_size=8,
        intermediate_hook_ids=[1, 0],
        intermediate_feature_dims=[8, 8],
        scaled_images_ratios=[0.25, 0.5, 1],
        scaled_images_overlap_ratios=[0.0, 0.5, 0.25],
        scaled_images_feature_dims=[8, 8, 8],
        merge_padding_value=1,
        use_fov_model=True,
        num_fov_head_layers=0,
        image_model_config=encoder(),
        patch_model_config=encoder(),
        fov_model_config=encoder(),
    )
    torch.manual_seed(0)
    DepthProForDepthEstimation(config).save_pretrained(folder)
    return folder


def save_sam2(folder):
    from transformers import (
        Sam2HieraDetConfig,
        Sam2VideoConfig,
        Sam2VideoMaskDecoderConfig,
        Sam2VideoModel,
        Sam2VideoPromptEncoderConfig,
        Sam2VisionConfig,
    )

    side = 64
    vision = Sam2VisionConfig(
        backbone_config=Sam2HieraDetConfig(
            hidden_size=8,
            num_attention_heads=1,
            image_size=[side, side],
            blocks_per_stage=[1, 1, 2, 1],
            embed_dim_per_stage=[8, 16, 32, 64],
            num_attention_heads_per_stage=[1, 2, 2, 2],
            window_size_per_stage=[4, 2, 2, 2],
            global_attention_blocks=[3],
            window_positional_embedding_background_size=[4, 4],
        ),
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=128,
    )
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(
            hidden_size=128, image_size=side, mask_input_channels=4
        ),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(
            hidden_size=128,
            mlp_dim=32,
            num_attention_heads=2,
            iou_head_hidden_dim=16,
        ),
        image_size=side,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=128,
        memory_encoder_output_channels=64,  # the only number that the memory attention takes
        **MEMORY,
    )
    torch.manual_seed(0)
    Sam2VideoModel(config).save_pretrained(folder)
    return folder


def register_pyramid():
    """Register a backbone of four strided convolutions with transformers, instead of timm's.

    EdgeTAM's own, RepViT, is of timm, which needs torchvision.
    """
    from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
    from transformers.modeling_outputs import BaseModelOutput

    class PyramidConfig(PreTrainedConfig):
        model_type = "tiny_pyramid"
        channels = (8, 16, 24, 32)

    class PyramidModel(PreTrainedModel):
        config_class = PyramidConfig

        def __init__(self, config):
            super().__init__(config)
            sizes = zip((3, *config.channels), config.channels, (4, 2, 2, 2), strict=False)
            self.stages = torch.nn.ModuleList(torch.nn.Conv2d(a, b, s, s) for a, b, s in sizes)
            self.post_init()

        def forward(self, pixel_values, **kwargs):
            features = [pixel_values]
            for stage in self.stages:
                features.append(stage(features[-1]).relu())
            return BaseModelOutput(last_hidden_state=features[1:])

    AutoConfig.register("tiny_pyramid", PyramidConfig, exist_ok=True)
    AutoModel.register(PyramidConfig, PyramidModel, exist_ok=True)
    return PyramidConfig


def save_edgetam(folder):
    """EdgeTAM but for its backbone; see `register_pyramid`."""
    from transformers import (
        EdgeTamVideoConfig,
        EdgeTamVideoMaskDecoderConfig,
        EdgeTamVideoModel,
        EdgeTamVideoPromptEncoderConfig,
        EdgeTamVisionConfig,
    )

    side = 64
    backbone = register_pyramid()()
    vision = EdgeTamVisionConfig(
        backbone_config=backbone,
        backbone_channel_list=list(backbone.channels[::-1]),
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=128,
    )
    config = EdgeTamVideoConfig(
        vision_config=vision,
        prompt_encoder_config=EdgeTamVideoPromptEncoderConfig(
            hidden_size=128, image_size=side, mask_input_channels=4
        ),
        mask_decoder_config=EdgeTamVideoMaskDecoderConfig(
            hidden_size=128, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16
        ),
        image_size=side,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=1,
        memory_attention_mlp_hidden_size=32,
        memory_attention_rope_feat_sizes=[4, 4],
        memory_attention_rope_k_sizes=[4, 4],
        perceiver_resampler_num_latents=4,
        perceiver_resampler_num_latents_2d=16,
        perceiver_resampler_mlp_intermediate_size=32,
        perceiver_resampler_num_layers=1,
        memory_encoder_hidden_size=128,
        **MEMORY,
    )
    torch.manual_seed(0)
    EdgeTamVideoModel(config).save_pretrained(folder)
    return folder


def save_sam3(folder, **options):
    """SAM 3 for videos and its tokenizer, of single letters; `options` of the video's part."""
    from transformers import CLIPTokenizer, Sam3VideoConfig, Sam3VideoModel

    side, patch, width, head = 112, 14, 128, {"num_attention_heads": 2}
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1} | head
    layer = {"hidden_size": width, "intermediate_size": 32, "num_layers": 1} | head
    vision = {
        "model_type": "sam3_vision_model",
        "backbone_config": {
            "model_type": "sam3_vit_model",
            "image_size": side,
            "patch_size": patch,
            "pretrain_image_size": 56,
            "window_size": 4,
            "global_attn_indexes": [0],
            **small,
        },
        "fpn_hidden_size": width,
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
    }
    letters = [chr(number) for number in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{x}</w>" for x in letters), "<|startoftext|>", "<|endoftext|>"]
    text = {"vocab_size": len(tokens), "projection_dim": 16, "max_position_embeddings": 32}
    text |= {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1}
    detector = {
        "model_type": "sam3",
        "vision_config": vision,
        "text_config": {"model_type": "clip_text_model", "hidden_act": "gelu", **small, **text},
        "geometry_encoder_config": layer,
        "detr_encoder_config": layer,
        "detr_decoder_config": {"num_queries": 5, **layer},
        "mask_decoder_config": {"hidden_size": width, **head},
    }
    tracker = {
        "model_type": "sam3_tracker_video",
        "vision_config": vision,
        "prompt_encoder_config": {
            "hidden_size": width,
            "image_size": side,
            "patch_size": patch,
            "mask_input_channels": 4,
        },
        "mask_decoder_config": {"hidden_size": width, "mlp_dim": 32, "iou_head_hidden_dim": 16}
        | head,
        "image_size": side,
        "memory_attention_hidden_size": width,
        "memory_attention_num_layers": 1,
        "memory_attention_feed_forward_hidden_size": 32,
        "memory_attention_rope_feat_sizes": [8, 8],
        "memory_encoder_hidden_size": width,
        "memory_encoder_output_channels": 64,
        **MEMORY,
    }
    # Whatever the network answers is an object.
    thresholds = {"score_threshold_detection": 0.0, "new_det_thresh": 0.0, "low_res_mask_size": 32}
    torch.manual_seed(0)
    config = Sam3VideoConfig(
        detector_config=detector, tracker_config=tracker, **thresholds | options
    )
    Sam3VideoModel(config).save_pretrained(folder)
    CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[]).save_pretrained(folder)
    return folder
